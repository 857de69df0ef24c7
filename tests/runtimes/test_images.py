"""Tests of runtimes.images: decoding, resizing, cropping, and boards without Pillow."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from runtimes import images
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing


def encode(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truncated.jpg", encode(noise(64, 64), "JPEG")[:1500]),
        ("truncated.png", encode(noise(64, 64))[:5000]),
        ("header only.png", encode(noise(64, 64))[:8]),
        ("zero.jpg", b""),
        ("text.jpg", b"not an image at all\n" * 20),
        ("random.png", np.random.default_rng(1).bytes(2000)),
    ],
)
def test_a_damaged_file_is_named_in_the_error(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(images.UnreadableImageError) as caught:
        images.decode(file)
    assert str(caught.value).startswith(f"{file}: not a readable image (")
    assert str(caught.value).count(str(file)) == 1
    assert isinstance(caught.value, InputError)


def test_damaged_bytes_are_told_by_their_number() -> None:
    with pytest.raises(images.UnreadableImageError, match=r"^5 bytes: not a readable image \("):
        images.decode(b"hello")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(images.UnreadableImageError, match=r"nothing\.png: not a readable image"):
        images.decode(tmp_path / "nothing.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_flipped_and_missing_bytes_raise_nothing_else(file_format: str) -> None:
    rng = np.random.default_rng(0)
    whole = encode(noise(24, 16), file_format)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(damaged), 200), 4):
            damaged[place] = rng.integers(0, 256)
        try:
            outcomes.add(images.decode(bytes(damaged)).mode)
        except images.UnreadableImageError:
            outcomes.add("unreadable")
    assert "unreadable" in outcomes
    assert outcomes <= {"unreadable", "RGB"}


@pytest.mark.parametrize(
    ("image", "file_format", "expected"),
    [
        (Image.new("L", (4, 4), 9), "PNG", (9, 9, 9)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.new("LA", (4, 4), (9, 128)), "PNG", (9, 9, 9)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), "PNG", (10, 20, 30)),
        (Image.new("RGB", (4, 4), (250, 20, 30)).quantize(4), "PNG", (250, 20, 30)),
        (Image.new("RGB", (4, 4), (250, 20, 30)).quantize(4), "GIF", (250, 20, 30)),
        (Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF", (0, 255, 255)),
        (Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", (0, 255, 255)),
        (Image.new("RGB", (4, 4), (250, 20, 30)), "BMP", (250, 20, 30)),
    ],
    ids=lambda value: getattr(value, "mode", None) or str(value),
)
def test_every_mode_becomes_rgb(image: Image.Image, file_format: str, expected: tuple[int, int, int]) -> None:
    decoded = images.decode(encode(image, file_format))
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(np.asarray(decoded), np.broadcast_to(expected, (*image.size, 3)), atol=2)


@pytest.mark.parametrize(
    ("mode", "file_format"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF"), ("I;16", "PPM")]
)
def test_sixteen_bits_are_scaled_not_clipped(mode: str, file_format: str) -> None:
    values = np.linspace(0, 65535, 64).astype({"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode])
    decoded = np.asarray(images.decode(encode(Image.frombytes(mode, (8, 8), values.tobytes()), file_format)))
    np.testing.assert_allclose(decoded[..., 0].ravel(), values.astype(np.float64) / 257, atol=1)
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 0] == decoded[..., 2]).all()


def colour_png(values: np.ndarray, colour_type: int) -> bytes:
    """Return a PNG of 16 bits per channel, which Pillow reads but can't write. values: (height, width, channels)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("mode", "file_format"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF")])
@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (1023, 10), (255, 8), (1, 1)])
def test_sixteen_bits_of_which_few_are_used_are_refused(mode: str, file_format: str, largest: int, bits: int) -> None:
    values = np.linspace(0, largest, 64).astype({"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode])
    encoded = encode(Image.frombytes(mode, (8, 8), values.tobytes()), file_format)
    with pytest.raises(
        images.UnreadableImageError, match=rf"use only {bits} bits \(at most {largest} of 65535\).*8 bits, or"
    ):
        images.decode(encoded)


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6), (2, 4)], ids=["RGB", "RGBA", "LA"])
def test_sixteen_bits_of_colour_of_which_few_are_used_are_refused(channels: int, colour_type: int) -> None:
    values = np.tile(np.linspace(0, 4095, 64).reshape(8, 8, 1), (1, 1, channels))
    with pytest.raises(images.UnreadableImageError, match="use only 12 bits"):
        images.decode(colour_png(values, colour_type))
    bright = np.asarray(images.decode(colour_png(values * 16, colour_type)))
    assert bright.max() == 255


@pytest.mark.parametrize("largest", [0, 4096, 65535])
def test_a_dark_and_a_black_image_of_sixteen_bits_are_read(largest: int) -> None:
    decoded = images.decode(encode(Image.fromarray(np.full((8, 8), largest, np.uint16))))
    assert decoded.getextrema()[0] == (largest >> 8, largest >> 8)


def test_a_pgm_names_its_own_white_level() -> None:
    decoded = images.decode(b"P5 2 2 4095\n" + np.full((2, 2), 4095, ">u2").tobytes())
    assert decoded.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: np.rot90(a)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_exif_orientation_is_undone(orientation: int, upright: object, dtype: type) -> None:
    stored = (np.arange(6).reshape(2, 3) * 40).astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    scale = 256 if dtype is np.uint16 else 1
    decoded = np.asarray(images.decode(encode(Image.fromarray(stored * scale), exif=exif)))
    np.testing.assert_array_equal(decoded[..., 0], upright(stored))  # type: ignore[operator]


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (33, 32), (32, 33), (32, 32), (5, 5), (1, 50), (600, 33)])
@pytest.mark.parametrize(("resize", "crop"), [(32, 32), (37, 32), (32, 7), (1, 1)])
def test_the_result_is_a_square_of_crop_pixels(size: tuple[int, int], resize: int, crop: int) -> None:
    result = images.resize_and_crop(noise(*size), Preprocessing(resize, crop))
    assert result.shape == (crop, crop, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((120, 60), (64, 32), (20, 4, 44, 28)),
        ((60, 120), (32, 64), (4, 20, 28, 44)),
        ((50, 50), (32, 32), (4, 4, 28, 28)),
    ],
    ids=["wide", "tall", "square"],
)
def test_resizing_and_cropping_is_what_pillow_does(
    size: tuple[int, int], resized: tuple[int, int], box: tuple[int, int, int, int], interpolation: str
) -> None:
    image = noise(*size)
    expected = image.resize(resized, Image.Resampling[interpolation.upper()]).crop(box)
    result = images.resize_and_crop(image, Preprocessing(32, 24, interpolation))  # type: ignore[arg-type]
    np.testing.assert_array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(30000, 2), (2, 30000), (100_000, 1), (30011, 300)])
def test_of_a_very_long_image_only_the_kept_square_is_resized(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = []

    def resize(image: Image.Image, size: tuple[int, int], *arguments: object) -> Image.Image:
        pixels.append(size[0] * size[1])
        return original(image, size, *arguments)  # type: ignore[arg-type]

    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", resize)
    result = images.resize_and_crop(noise(*size), Preprocessing(256, 224, interpolation))  # type: ignore[arg-type]
    assert result.shape == (224, 224, 3)
    assert sum(pixels) == 224 * 224


@settings(max_examples=100)
@given(
    short=st.integers(1, 12), ratio=st.floats(17, 60), wide=st.booleans(), crop=st.integers(1, 24),
    margin=st.integers(0, 8), interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
)  # fmt: skip
def test_a_very_long_image_gives_the_square_of_the_whole_resized_image(
    short: int, ratio: float, wide: bool, crop: int, margin: int, interpolation: Any
) -> None:
    long = round(short * ratio)
    size = (long, short) if wide else (short, long)
    row, column = np.mgrid[: size[1], : size[0]]
    waves = 128 + 60 * np.sin(row / 9) + 60 * np.cos(column / 7)  # smooth: no overshoot, so nothing is clipped
    image = Image.fromarray(np.repeat(waves[..., None], 3, axis=2).astype(np.uint8))
    preprocessing = Preprocessing(crop + margin, crop, interpolation)
    result = images.resize_and_crop(image, preprocessing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_ASPECT_RATIO", 1000)
        whole = images.resize_and_crop(image, preprocessing)
    np.testing.assert_allclose(result.astype(int), whole.astype(int), atol=2)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = noise(32, 40)
    np.testing.assert_array_equal(images.resize_and_crop(image, Preprocessing(32, 32)), np.asarray(image)[4:36])


@settings(max_examples=100, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)), crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    margin=st.integers(0, 9), channels=st.sampled_from(["rgb", "bgr", "grey", "rgba"]),
)  # fmt: skip
def test_every_image_covers_a_crop_of_any_shape_and_order(
    size: tuple[int, int], crop: tuple[int, int], margin: int, channels: Any
) -> None:
    count = {"grey": 1, "rgba": 4}.get(channels, 3)
    preprocessing = Preprocessing(min(crop) + margin, crop, mean=(0.5,) * count, std=(0.5,) * count, channels=channels)
    width, height = preprocessing.resized_size(*size)
    assert width >= crop[1]
    assert height >= crop[0]
    assert width == preprocessing.resized[1] or height == preprocessing.resized[0]
    image = noise(*size)
    result = images.resize_and_crop(image, preprocessing)
    assert result.shape == (*crop, count)
    rgb = images.resize_and_crop(image, Preprocessing(min(crop) + margin, crop))
    if channels in ("rgb", "bgr"):
        np.testing.assert_array_equal(result[..., :: 1 if channels == "rgb" else -1], rgb)


@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey", "rgba"])
def test_colours_come_in_the_order_of_the_channels(tmp_path: Path, channels: Any) -> None:
    pixels = np.broadcast_to(np.array([200, 100, 50, 128], np.uint8), (6, 9, 4))
    expected = {"rgb": (200, 100, 50), "bgr": (50, 100, 200), "grey": (124,), "rgba": (200, 100, 50, 128)}[channels]
    count = len(expected)
    preprocessing = Preprocessing(6, (6, 9), mean=(0.5,) * count, std=(0.5,) * count, channels=channels)
    stored = pixels if channels == "rgba" else pixels[..., :3]
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "picture.png")
    np.save(tmp_path / "array.npy", stored)
    np.save(tmp_path / "larger.npy", stored.repeat(2, 0).repeat(2, 1))
    for name in ("picture.png", "array.npy", "larger.npy"):
        result = images.read(tmp_path / name, preprocessing)
        wanted = np.broadcast_to(np.array(expected, np.uint8), (6, 9, count))
        np.testing.assert_allclose(result.astype(int), wanted, atol=1)  # Pillow multiplies by alpha and divides


@pytest.mark.parametrize("axis", [(), (1,)], ids=["two axes", "three axes"])
def test_an_array_of_one_channel_is_grey(tmp_path: Path, axis: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9), np.uint8)
    np.save(tmp_path / "grey.npy", pixels.reshape(6, 9, *axis))
    grey = Preprocessing(6, (6, 9), mean=(0.5,), std=(0.5,), channels="grey")
    np.testing.assert_array_equal(images.read(tmp_path / "grey.npy", grey)[..., 0], pixels)
    smaller = images.read(tmp_path / "grey.npy", dataclasses.replace(grey, resize=3, crop=(3, 4)))
    expected = images.resize_and_crop(Image.fromarray(pixels), dataclasses.replace(grey, resize=3, crop=(3, 4)))
    np.testing.assert_array_equal(smaller, expected)
    with pytest.raises(images.UnreadableImageError, match=r"is not uint8 \(height, width, 3\)"):
        images.read(tmp_path / "grey.npy", Preprocessing(6, (6, 9)))
    np.save(tmp_path / "rgba.npy", np.zeros((6, 9, 4), np.uint8))
    with pytest.raises(images.UnreadableImageError, match=r"is not uint8 \(height, width, 1 or 3\)"):
        images.read(tmp_path / "rgba.npy", grey)


def test_an_image_without_alpha_is_opaque() -> None:
    preprocessing = Preprocessing(8, 8, mean=(0.5,) * 4, std=(0.5,) * 4, channels="rgba")
    assert (images.read(encode(noise(20, 10)), preprocessing)[..., 3] == 255).all()


def test_networks_with_other_channels_take_arrays(tmp_path: Path) -> None:
    preprocessing = Preprocessing(8, 8, mean=(0.5,) * 6, std=(0.5,) * 6, channels="array")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 6), np.uint8)
    np.save(tmp_path / "spectrum.npy", pixels)
    result = images.read(tmp_path / "spectrum.npy", preprocessing)
    rgb = images.resize_and_crop(Image.fromarray(pixels[..., 3:]), Preprocessing(8, 8))
    np.testing.assert_array_equal(result[..., 3:], rgb)
    np.save(tmp_path / "rgb.npy", pixels[..., :3])
    noise(9, 9).save(tmp_path / "picture.png")
    for name, message in (("rgb.npy", r"is not uint8 \(height, width, 6\)"), ("picture.png", "is no .npy file")):
        with pytest.raises(images.UnreadableImageError, match=message):
            images.read(tmp_path / name, preprocessing)


FORMATS = ["jpg", "jpe", "jfif", "png", "apng", "bmp", "dib", "webp", "tif", "gif", "pbm", "pgm", "pnm", "ppm", "tga",
           "avif", "jp2", "j2k", "pcx", "sgi", "qoi", "ico", "dds"]  # fmt: skip


@pytest.mark.parametrize("extension", FORMATS)
def test_every_image_format_that_pillow_writes_is_an_image_and_read(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension.upper()}"
    image = noise(16, 16).convert("1" if extension == "pbm" else "RGB")
    image.save(path, Image.registered_extensions()[f".{extension}"])
    assert images.is_image(path.name)
    assert images.decode(path).mode == "RGB"


@pytest.mark.parametrize("name", ["a.heic", "a.txt", "a.eps", "a.pdf", "a.h5", "jpg", ".jpg", "a.", "a.jpg.bak"])
def test_other_files_are_no_images(name: str) -> None:
    assert not images.is_image(name)


def test_formats_without_a_decoder_are_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "jpg_2000")
    images.extensions.cache_clear()
    assert not images.is_image("a.jp2")
    assert images.is_image("a.jpg")
    images.extensions.cache_clear()


def test_a_name_that_is_not_utf_8_is_escaped_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(images.UnreadableImageError) as caught:
        images.decode(tmp_path / os.fsdecode(b"\xe9.png"))
    str(caught.value).encode("utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about metadata
@pytest.mark.parametrize("file_format", ["AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_damaged_bytes_are_decoded_or_unreadable(file_format: str) -> None:
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    whole, rng = encode(noise(40, 40), file_format), np.random.default_rng(0)
    unreadable = 0
    for end in rng.integers(1, len(whole), 150).tolist():
        damaged = np.frombuffer(whole[: end if end % 4 == 0 else None], np.uint8).copy()
        damaged[rng.integers(min(len(damaged), 300), size=4)] = rng.integers(256, size=4)
        try:
            images.decode(damaged.tobytes())
        except images.UnreadableImageError:
            unreadable += 1
    assert unreadable > 20
