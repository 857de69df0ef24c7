"""Images that look alike: hashes of re-encoded, resized and different images, and the search for pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from compress.images import similar
from compress.images.similar import BANDS, MAX_DISTANCE, nearest, perceptual_hash


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Return smooth random shapes with a little grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def distance(one: Image.Image, other: Image.Image) -> int:
    hashes = [perceptual_hash(image) for image in (one, other)]
    assert hashes[0] is not None
    assert hashes[1] is not None
    return sum(int(value).bit_count() for value in hashes[0] ^ hashes[1])


@pytest.mark.parametrize("seed", range(10))
def test_encoded_and_resized_again_an_image_is_similar(seed: int) -> None:
    original = photo(seed)
    for copy in (
        as_jpeg(original, 75), as_jpeg(original, 50), original.resize((160, 120)), original.resize((640, 480)),
        original.resize((224, 224)), original.convert("L"), original.filter(ImageFilter.GaussianBlur(1)),
    ):  # fmt: skip
        assert distance(original, copy) <= MAX_DISTANCE


def test_different_images_are_not_similar() -> None:
    images = [photo(seed) for seed in range(40)]
    assert min(distance(one, other) for index, one in enumerate(images) for other in images[:index]) > 5 * MAX_DISTANCE


def test_an_image_without_contrast_has_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (64, 64), (10, 200, 30))) is None
    noise = np.random.default_rng(0).integers(100, 107, (64, 64), np.uint8)
    assert perceptual_hash(Image.fromarray(noise)) is None


@settings(max_examples=200)
@given(data=st.data(), queries=st.integers(0, 12), references=st.integers(0, 12))
def test_the_nearest_is_that_of_all_pairs(data: st.DataObject, queries: int, references: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    centres = rng.integers(0, 1 << 32, (3, BANDS), dtype=np.uint32)

    def hashes(count: int) -> np.ndarray:
        result = centres[rng.integers(0, 3, count)]
        for row in result:
            for _ in range(rng.integers(0, 7)):
                row[rng.integers(BANDS)] ^= np.uint32(1 << int(rng.integers(32)))
        return result

    one, other = hashes(queries), hashes(references)
    index, bits = nearest(one, other)
    for row, found, differing in zip(one, index, bits, strict=True):
        every = [sum(int(value).bit_count() for value in row ^ reference) for reference in other]
        if min(every, default=99) > MAX_DISTANCE:
            assert found == -1
        else:
            assert differing == min(every) == every[found]


def test_many_pairs_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "PAIRS", 10)
    equal = np.zeros((50, BANDS), np.uint32)
    index, bits = nearest(equal, equal)
    assert index.tolist() == [0] * 50
    assert bits.tolist() == [0] * 50
