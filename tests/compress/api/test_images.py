"""The argument `images`: folders, paths, arrays and Pillow images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compress.api.images import items_of, samples_of, size_of
from runtimes.errors import InputError
from runtimes.images import read
from runtimes.preprocessing import Preprocessing

SMALL = Preprocessing(8, 8)


def pixels(count: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_a_folder_stays_a_folder(tmp_path: Path) -> None:
    assert items_of(str(tmp_path)) == tmp_path
    assert size_of(tmp_path) is None


def test_arrays_of_the_networks_size_are_taken_as_they_are(tmp_path: Path) -> None:
    images = pixels()
    samples = samples_of(items_of(images), 3, tmp_path)
    assert [sample.name for sample in samples] == ["image 0", "image 1", "image 2"]
    for sample, image in zip(samples, images, strict=True):
        np.testing.assert_array_equal(read(sample.source, SMALL), image)
    assert size_of(items_of(images)) == (8, 8)


def test_paths_arrays_and_pictures_can_be_mixed(tmp_path: Path) -> None:
    (array,) = pixels(1)
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    items = items_of([path, str(path), array, Image.fromarray(array)])
    assert size_of(items) is None
    for sample in samples_of(items, 9, tmp_path):
        np.testing.assert_array_equal(read(sample.source, SMALL), array)


def test_at_most_a_number_of_images_is_written(tmp_path: Path) -> None:
    samples = samples_of(items_of(pixels(7)), 3, tmp_path)
    assert [sample.name for sample in samples] == ["image 0", "image 3", "image 6"]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_a_picture_is_read_as_its_file(mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = (
        Image.fromarray(values[..., 0].astype(np.uint16) << 8)
        if mode == "I;16"
        else Image.fromarray(values).convert(mode)
    )
    picture.save(tmp_path / "file.tiff")
    (sample,) = samples_of([picture], 1, tmp_path)
    np.testing.assert_array_equal(read(sample.source, SMALL), read(tmp_path / "file.tiff", SMALL))


def test_orientation_and_transparency_of_a_picture_are_kept(tmp_path: Path) -> None:
    picture = Image.fromarray(pixels(1)[0])
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    palette = picture.convert("P")
    palette.save(tmp_path / "palette.png", transparency=3)
    for name in ("turned.png", "palette.png"):
        with Image.open(tmp_path / name) as opened:
            (sample,) = samples_of([opened], 1, tmp_path)
            np.testing.assert_array_equal(read(sample.source, SMALL), read(tmp_path / name, SMALL))


@pytest.mark.parametrize(("images", "message"), [
    (7, "images: must be a folder, a list of paths, Pillow images, or uint8 arrays .*, not int"),
    ([], "images: there are none"),
    (np.zeros((2, 8, 8, 3), np.float32), "must be uint8 pixels in 0 to 255, not float32; give them before they are"),
    (np.zeros((2, 3, 8, 8), np.uint8), r"must be of \(height, width, channels\), not \(3, 8, 8\)"),
    (np.zeros((8, 8, 3), np.uint8), r"must be of \(height, width, channels\), not \(8, 3\)"),
    ([torch.zeros(3, 8, 8)], "images: must be a folder, .*, not Tensor"),
    ([Image.new("HSV", (8, 8))], "images: image 0 can't be used"),
])  # fmt: skip
def test_anything_else_is_refused(images: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        samples_of(items_of(images), 9, tmp_path)  # type: ignore[arg-type]
