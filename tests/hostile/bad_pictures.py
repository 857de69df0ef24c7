"""Images that can't be read, and images in unusual formats that can."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, artifact_in, written
from PIL import Image


def pictures(folder: Path) -> Iterator[Case]:
    """Yield images that can't be read, and images in unusual formats that can."""
    artifact = artifact_in(folder / "model")
    good, odd = _encodings(), _odd_pictures()
    damaged = {f"{name} truncated to {share} %": content[: len(content) * share // 100]
               for name, content in good.items() for share in (0, 5, 20, 50, 80)}  # fmt: skip
    for name, content in {**damaged, **_bombs(), **_dark_pictures(), **NO_PICTURES, **odd}.items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        suffix = next((f".{ending}" for ending in good if name.startswith(ending)), ".png")
        path = written(place / "test" / "a" / f"picture{suffix}", content)
        for other in ("train/a", "train/b", "val/a", "val/b", "test/b"):
            written(place / other / "good.png", good["png"])
        arguments = ["evaluate", str(artifact), "--data", f"imagefolder:{place}"]
        is_right = name in odd
        yield Case(name, place, arguments, "" if is_right else path.name, content, is_right)


def _encodings() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    encoded = {}
    for ending, form in (("jpg", "jpeg"), ("png", "png"), ("bmp", "bmp"), ("webp", "webp"), ("tif", "tiff"),
                         ("gif", "gif"), ("ppm", "ppm")):  # fmt: skip
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form)
        encoded[ending] = stream.getvalue()
    return encoded


def _dark_pictures() -> dict[str, bytes]:
    """Return 16-bit images that use 12 bits, which would become black."""
    values = np.random.default_rng(2).integers(0, 4096, (40, 50)).astype(np.uint16)
    dark = {}
    for name, form in (("png of 12 bits", "png"), ("tif of 12 bits", "tiff")):
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, form)
        dark[name] = stream.getvalue()
    return dark


def _odd_pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    images: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "jpg CMYK": (rgb.convert("CMYK"), {"format": "jpeg"}),
        "jpg grey": (rgb.convert("L"), {"format": "jpeg"}),
        "jpg turned by EXIF": (rgb, {"format": "jpeg", "exif": turned}),
        "jpg progressive": (rgb, {"format": "jpeg", "progressive": True}),
        "png 16 bits": (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {"format": "png"}),
        "png palette": (rgb.convert("P"), {"format": "png"}),
        "png transparent": (rgb.convert("RGBA"), {"format": "png"}),
        "png palette with transparency": (rgb.convert("P"), {"format": "png", "transparency": 3}),
        "png one bit": (rgb.convert("1"), {"format": "png"}),
        "png interlaced name of a JPEG": (rgb, {"format": "jpeg"}),
        "gif animated": (
            rgb.convert("P"),
            {"format": "gif", "save_all": True, "append_images": [rgb.convert("P")] * 3},
        ),
        "webp lossless": (rgb.convert("RGBA"), {"format": "webp", "lossless": True}),
        "tif LZW": (rgb, {"format": "tiff", "compression": "tiff_lzw"}),
        "png 30000 x 2": (rgb.resize((30_000, 2)), {"format": "png"}),
        "png one pixel": (rgb.crop((0, 0, 1, 1)), {"format": "png"}),
        "png one pixel high": (rgb.crop((0, 0, 50, 1)), {"format": "png"}),
    }
    encoded = {}
    for name, (image, how) in images.items():
        stream = io.BytesIO()
        image.save(stream, **how)
        encoded[name] = stream.getvalue()
    return encoded


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def _bombs() -> dict[str, bytes]:
    return {
        "png of a billion pixels": _png(40_000, 30_000, bytes(1 << 20)),
        "png of two billion by one": _png(2**31 - 1, 1, b"\x00" * 64),
        "png of no width": _png(0, 5, b""),
        "png without its pixels": _png(64, 64, b"\x00" * 10),
        "bmp of a billion pixels": b"BM" + struct.pack("<IHHIIiiHH6I", 54, 0, 0, 54, 40, 40_000, 30_000, 1, 24,
                                                       0, 0, 0, 0, 0, 0),
        "gif of 65535 squared": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\x00\x3b",
    }  # fmt: skip


NO_PICTURES = {
    "a text named PNG": b"this is no picture\n",
    "HTML named PNG": b"<html><body>404</body></html>",
    "jpg of random bytes": np.random.default_rng(2).bytes(5000),
    "png of zero bytes of length 4096": bytes(4096),
    "SVG named PNG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "an archive named PNG": b"PK\x03\x04" + bytes(60),
    "a pickle named PNG": pickle.dumps({"a": 1}),
    "PostScript named PNG": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) run\n",
    "jpg with only its start": b"\xff\xd8\xff\xe0",
    "tif that points at itself": b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 8, 8),
    "webp with a wrong length": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
}
