"""Plain JPEGs: sizes, completeness, EXIF."""

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


def test_exif_is_found_among_the_segments() -> None:
    assert jpeg._has_exif(encoded(exif=turned()))
    assert not jpeg._has_exif(encoded(comment="Exif" * 9))
    assert not jpeg._has_exif(b"\xff\xd8")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_truncated_jpegs_are_not_whole(mode: str) -> None:
    content = encoded(mode=mode)
    assert jpeg.plain_size(content) == (60, 40)
    assert jpeg.is_whole(content)
    for share in (0.1, 0.5, 0.95):
        assert not jpeg.is_whole(content[: int(share * len(content))])


@pytest.mark.parametrize(
    "content", [encoded(mode="CMYK"), encoded("PNG"), encoded(exif=turned()), b"", b"\xff\xd8\xff"]
)
def test_other_images_are_not_plain(content: bytes) -> None:
    assert jpeg.plain_size(content) is None
    assert not jpeg.is_whole(content)
