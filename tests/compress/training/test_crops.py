"""Random crops: boxes like torchvision's, pixels like Pillow's decoder's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import v2

from compress.images import jpeg
from compress.training.config import Augment
from compress.training.crops import draw_box, random_resized_crop
from runtimes import images
from runtimes.preprocessing import Preprocessing

SMALL = Preprocessing(40, 24)


def photograph(width: int = 300, height: int = 200, seed: int = 0) -> Image.Image:
    """Return smooth colours with some detail."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse).astype(int) + rng.integers(-8, 9, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def boxes(
    count: int, augment: Augment, width: int = 300, height: int = 200, preprocessing: Preprocessing = SMALL
) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray([draw_box((width, height), preprocessing, augment, rng) for _ in range(count)])


def test_boxes_stay_within_the_image_the_area_and_the_ratio() -> None:
    left, top, width, height = boxes(400, Augment(crop_scale=(0.2, 0.6))).T
    shares, ratios = width * height / (300 * 200), width / height
    assert min(left.min(), top.min()) >= 0
    assert (left + width).max() <= 300
    assert (top + height).max() <= 200
    assert 0.197 <= shares.min() < 0.22
    assert 0.55 < shares.max() <= 0.603
    assert 0.74 <= ratios.min() < 0.77
    assert 1.3 < ratios.max() <= 1.35
    assert abs(np.mean(np.log(ratios))) < 0.04


def test_boxes_are_distributed_like_those_of_torchvision() -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    reference = v2.RandomResizedCrop(24, scale=(0.08, 1.0))
    drawn = [reference.make_params([image]) for _ in range(3000)]
    theirs = np.asarray([[box["left"], box["top"], box["width"], box["height"]] for box in drawn])
    ours = boxes(3000, Augment(crop_scale=(0.08, 1.0)))
    for column, name in enumerate(("left", "top", "width", "height")):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01, name


def test_an_image_too_narrow_for_any_box_is_cropped_at_its_centre() -> None:
    image = photograph(900, 10)
    cut = random_resized_crop(
        encoded(image, "PNG"), SMALL, Augment(crop_scale=(0.9, 1.0)), np.random.default_rng(0), (24, 24)
    )  # fmt: skip
    np.testing.assert_array_equal(cut, images.resize_and_crop(image, SMALL))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_equal_pillows_except_at_edges_of_subsampled_colours(mode: str, subsampling: int) -> None:
    content = encoded(photograph().convert(mode), quality=85, subsampling=subsampling)
    fast, exact = jpeg.decode(content).astype(int), np.asarray(images.decode(content)).astype(int)
    if mode == "L" or subsampling == 0:
        np.testing.assert_array_equal(fast, exact)
    luma = np.asarray([0.299, 0.587, 0.114])
    assert np.abs((fast - exact) @ luma).mean() < 0.3
    assert abs((fast - exact).mean()) < 0.1
    assert np.abs(fast - exact).mean() < 3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_crop_is_the_resized_part_of_the_box(kind: str, interpolation: str) -> None:
    """At a size at which JPEGs are decoded at full scale."""
    preprocessing = Preprocessing(120, 110, interpolation)  # type: ignore[arg-type]
    content = encoded(photograph(), kind, **({"subsampling": 0} if kind == "JPEG" else {}))
    augment = Augment(crop_scale=(0.2, 0.6))
    whole = images.decode(content)
    for seed in range(5):
        cut = random_resized_crop(content, preprocessing, augment, np.random.default_rng(seed), (110, 110))
        assert (cut.shape, cut.dtype) == ((110, 110, 3), np.uint8)
        box = draw_box((300, 200), preprocessing, augment, np.random.default_rng(seed))
        assert box is not None
        left, top, width, height = box
        part = whole.crop((left, top, left + width, top + height))
        expected = np.asarray(part.resize((110, 110), images.resampling(preprocessing)))
        assert np.abs(cut.astype(int) - expected).max() <= 2


def test_large_jpegs_are_decoded_at_a_lower_scale_with_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    content, augment = encoded(photograph(1600, 1200), quality=92), Augment(crop_scale=(0.3, 1.0))
    whole = images.decode(content)
    shapes: list[tuple[int, ...]] = []
    decode = simplejpeg.decode_jpeg

    def spy(*arguments: object, **options: object) -> np.ndarray:
        shapes.append(decode(*arguments, **options).shape)
        return decode(*arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    for seed in range(5):
        cut = random_resized_crop(content, Preprocessing(140, 128), augment, np.random.default_rng(seed), (128, 128))
        box = draw_box((1600, 1200), SMALL, augment, np.random.default_rng(seed))
        assert box is not None
        left, top, width, height = box
        part = whole.crop((left, top, left + width, top + height))
        expected = np.asarray(part.resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(cut - expected).mean() < 2
        assert shapes[-1][1] < 1600
        assert min(shapes[-1][1] * width / 1600, shapes[-1][0] * height / 1200) >= 128 - 1


def test_images_that_simplejpeg_can_not_decode_are_decoded_by_pillow() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    part = Augment(crop_scale=(1.0, 1.0))
    for content in (
        encoded(photograph(60, 60), exif=turned), encoded(photograph(60, 60).convert("CMYK")),
        encoded(photograph(60, 60).convert("P"), "GIF"),
    ):  # fmt: skip
        whole = np.asarray(images.decode(content))
        for seed in range(20):
            box = draw_box((60, 60), SMALL, part, np.random.default_rng(seed))
            if box is not None:
                break
        assert box is not None
        left, top, width, height = box
        cut = random_resized_crop(content, Preprocessing(60, 60), part, np.random.default_rng(seed), (width, width))
        if width == height:
            np.testing.assert_array_equal(cut, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("keep", [0.5, 0.02])
def test_a_damaged_file_is_named(tmp_path: Path, keep: float) -> None:
    content = encoded(photograph())
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(images.UnreadableImageError, match=r"cut\.jpg: not a readable image"):
        random_resized_crop(path, SMALL, Augment(crop_scale=(0.5, 1.0)), np.random.default_rng(0), (24, 24))
