"""Random crops of encoded images: the box is drawn first, and no more is decoded than it needs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from compress.images import jpeg
from compress.training.config import Augment
from runtimes import images
from runtimes.preprocessing import Preprocessing

RATIO = (3 / 4, 4 / 3)  # width / height, as in Inception and torchvision
TRIES = 10
FACTOR = 2  # from which on a JPEG is decoded faster when it is decoded smaller: 1/2, 1/4, 1/8
TENSOR_MODES = ("bilinear", "bicubic")  # that torch resizes in uint8

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, width, height


def random_resized_crop(
    source: images.Source, preprocessing: Preprocessing, augment: Augment, rng: np.random.Generator, side: int
) -> Pixels:
    """Cut a random part and resize it to (side, side, 3) (Szegedy et al., CVPR 2015, section 6).

    After ten boxes that do not fit, the whole is resized and its centre cut out, as at evaluation. Raises
    UnreadableImageError.
    """
    encoded = images.content(source)
    size = jpeg.plain_size(encoded)
    if size is None:
        image = images.decode(source)
        box = draw_box(image.width, image.height, augment, rng)
        return _resized(np.asarray(image), box, preprocessing, side)
    box = draw_box(*size, augment, rng)
    pixels = _decoded(source, encoded, size, box, side)
    if box is not None and pixels.shape[1] != size[0]:
        box = _scaled(box, size, pixels)
    return _resized(pixels, box, preprocessing, side)


def draw_box(width: int, height: int, augment: Augment, rng: np.random.Generator) -> Box | None:
    """Return a random part of an image, None where none of ten fits.

    The area is uniform in crop_scale, the logarithm of width / height uniform in that of 3/4 to 4/3.
    """
    assert augment.crop_scale is not None
    for _ in range(TRIES):
        area = width * height * rng.uniform(*augment.crop_scale)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            return int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1)), wide, high
    return None


def resize(pixels: Pixels, preprocessing: Preprocessing, side: int) -> Pixels:
    """Resize (height, width, 3) to (side, side, 3), smoothed before it is made smaller."""
    if pixels.shape[:2] == (side, side):
        return pixels
    if preprocessing.interpolation not in TENSOR_MODES:
        image = images.as_image(pixels).resize((side, side), images.resampling(preprocessing))
        return np.asarray(image)
    own = pixels if pixels.flags.writeable else pixels.copy()  # torch takes no other
    tensor = torch.from_numpy(own).permute(2, 0, 1)[None]
    made = functional.interpolate(tensor, (side, side), mode=preprocessing.interpolation, antialias=True)
    result: Pixels = made[0].permute(1, 2, 0).numpy()
    return result


def _resized(pixels: Pixels, box: Box | None, preprocessing: Preprocessing, side: int) -> Pixels:
    if box is None:
        return resize(images.resize_and_crop(images.as_image(pixels), preprocessing), preprocessing, side)
    left, top, width, height = box
    return resize(pixels[top : top + height, left : left + width], preprocessing, side)


def _decoded(source: images.Source, encoded: bytes, size: tuple[int, int], box: Box | None, side: int) -> Pixels:
    """Return all pixels, at the smallest of the fast scales at which the box still has side x side of them."""
    options: dict[str, int] = {}
    if box is not None:
        wide, high = math.ceil(size[0] * side / box[2]), math.ceil(size[1] * side / box[3])
        if FACTOR * wide <= size[0] and FACTOR * high <= size[1]:
            options = {"min_width": wide, "min_height": high, "min_factor": FACTOR}
    try:
        return jpeg.decode(encoded, **options)
    except ValueError:  # it is stricter than Pillow, which gives the same pixels and tells what is wrong
        return np.asarray(images.decode(source))


def _scaled(box: Box, size: tuple[int, int], pixels: Pixels) -> Box:
    """Return the box in an image that was decoded smaller."""
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    left, top = round(box[0] * across), round(box[1] * down)
    right, bottom = round((box[0] + box[2]) * across), round((box[1] + box[3]) * down)
    return left, top, max(1, right - left), max(1, bottom - top)
