"""Random crops of encoded images: the box is drawn first, then the image is decoded at the lowest sufficient scale."""

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
FACTOR = 2  # least reduction at which decoding a JPEG at a lower scale (1/2, 1/4, 1/8) is faster
TENSOR_MODES = ("bilinear", "bicubic")  # interpolations that torch supports for uint8

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, width, height


def random_resized_crop(
    source: images.Source, preprocessing: Preprocessing, augment: Augment, rng: np.random.Generator, side: int
) -> Pixels:
    """Return a random part of an image, resized to (side, side, 3) (Szegedy et al., CVPR 2015, section 6).

    If none of ten random boxes fits, the image is resized and its centre cropped, as for evaluation. Raises
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
    """Return a random box inside an image, None if none of ten fits.

    The area is uniform in crop_scale; the logarithm of width / height is uniform between those of 3/4 and 4/3.
    """
    assert augment.crop_scale is not None
    for _ in range(TRIES):
        area = width * height * rng.uniform(*augment.crop_scale)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        box_width, box_height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
            return left, top, box_width, box_height
    return None


def resize(pixels: Pixels, preprocessing: Preprocessing, side: int) -> Pixels:
    """Resize (height, width, 3) to (side, side, 3), with antialiasing."""
    if pixels.shape[:2] == (side, side):
        return pixels
    if preprocessing.interpolation not in TENSOR_MODES:
        image = images.as_image(pixels).resize((side, side), images.resampling(preprocessing))
        return np.asarray(image)
    writeable = pixels if pixels.flags.writeable else pixels.copy()  # torch warns about read-only arrays
    tensor = torch.from_numpy(writeable).permute(2, 0, 1)[None]
    interpolated = functional.interpolate(tensor, (side, side), mode=preprocessing.interpolation, antialias=True)
    result: Pixels = interpolated[0].permute(1, 2, 0).numpy()
    return result


def _resized(pixels: Pixels, box: Box | None, preprocessing: Preprocessing, side: int) -> Pixels:
    if box is None:
        return resize(images.resize_and_crop(images.as_image(pixels), preprocessing), preprocessing, side)
    left, top, width, height = box
    return resize(pixels[top : top + height, left : left + width], preprocessing, side)


def _decoded(source: images.Source, encoded: bytes, size: tuple[int, int], box: Box | None, side: int) -> Pixels:
    """Return the whole image, at the lowest fast scale at which the box has at least side x side pixels."""
    options: dict[str, int] = {}
    if box is not None:
        min_width, min_height = math.ceil(size[0] * side / box[2]), math.ceil(size[1] * side / box[3])
        if FACTOR * min_width <= size[0] and FACTOR * min_height <= size[1]:
            options = {"min_width": min_width, "min_height": min_height, "min_factor": FACTOR}
    try:
        return jpeg.decode(encoded, **options)
    except ValueError:  # simplejpeg is stricter than Pillow, which decodes the image or names the reason
        return np.asarray(images.decode(source))


def _scaled(box: Box, size: tuple[int, int], pixels: Pixels) -> Box:
    """Return the box in the coordinates of an image that was decoded at a lower scale."""
    scale_x, scale_y = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    left, top = round(box[0] * scale_x), round(box[1] * scale_y)
    right, bottom = round((box[0] + box[2]) * scale_x), round((box[1] + box[3]) * scale_y)
    return left, top, max(1, right - left), max(1, bottom - top)
