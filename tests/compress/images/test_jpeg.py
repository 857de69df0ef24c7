from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from compress.images import jpeg


def encoded(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_the_segments_before_the_pixels_are_walked_through() -> None:
    assert jpeg._has_exif(encoded(exif=turned()))
    assert not jpeg._has_exif(encoded(comment="Exif" * 9))
    assert not jpeg._has_exif(b"\xff\xd8")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpegs_are_whole_until_they_are_cut(mode: str) -> None:
    content = encoded(mode=mode)
    assert jpeg.plain_size(content) == (60, 40)
    assert jpeg.is_whole(content)
    for share in (0.1, 0.5, 0.95):
        assert not jpeg.is_whole(content[: int(share * len(content))])


@pytest.mark.parametrize(
    "content", [encoded(mode="CMYK"), encoded("PNG"), encoded(exif=turned()), b"", b"\xff\xd8\xff"]
)
def test_all_else_is_left_to_pillow(content: bytes) -> None:
    assert jpeg.plain_size(content) is None
    assert not jpeg.is_whole(content)
