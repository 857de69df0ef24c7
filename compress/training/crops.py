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
from runtimes.preprocessing import Preprocessing, Sides

RATIO = (3 / 4, 4 / 3)  # width / height, as in Inception and torchvision
TRIES = 10
FACTOR = 2  # least reduction at which decoding a JPEG at a lower scale (1/2, 1/4, 1/8) is faster
TENSOR_MODES = ("bilinear", "bicubic")  # interpolations that torch supports for uint8

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, width, height


def random_resized_crop(
    source: images.Source, preprocessing: Preprocessing, augment: Augment, rng: np.random.Generator, sides: Sides
) -> Pixels:
    """Return a random part of an image, resized to (*sides, channels) (Szegedy et al., CVPR 2015, section 6).

    If none of ten random boxes fits, the image is resized and its centre cropped, as for evaluation. Raises
    UnreadableImageError.
    """
    encoded = images.content(source)
    size = None if preprocessing.channels == "rgba" else jpeg.plain_size(encoded)
    if size is None:
        image = images.decode(source, preprocessing.channels == "rgba")
        box = draw_box(image.size, preprocessing, augment, rng)
        return _resized(np.asarray(image), box, preprocessing, sides)
    box = draw_box(size, preprocessing, augment, rng)
    pixels = _decoded(source, encoded, size, box, sides)
    if box is not None and pixels.shape[1] != size[0]:
        box = _scaled(box, size, pixels)
    return _resized(pixels, box, preprocessing, sides)


def draw_box(size: Sides, preprocessing: Preprocessing, augment: Augment, rng: np.random.Generator) -> Box | None:
    """Return a random box inside an image of a size (width, height), None if none of ten fits.

    The area is uniform in crop_scale; the logarithm of width / height is uniform between those of 3/4 and 4/3, times
    the proportions of the crop. The whole area of a crop that is no square is the largest box of its proportions.
    """
    assert augment.crop_scale is not None
    (width, height), proportions = size, preprocessing.width / preprocessing.height
    whole = width * height if proportions == 1 else min(width, height * proportions) ** 2 / proportions
    for _ in range(TRIES):
        area = whole * rng.uniform(*augment.crop_scale)
        ratio = proportions * math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        box_width, box_height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
            return left, top, box_width, box_height
    return None


def resize(pixels: Pixels, preprocessing: Preprocessing, sides: Sides) -> Pixels:
    """Resize (height, width, channels) to other sides (height, width), with antialiasing."""
    if pixels.shape[:2] == sides:
        return pixels
    if preprocessing.interpolation not in TENSOR_MODES:
        image = images.as_image(pixels).resize(sides[::-1], images.resampling(preprocessing))
        return np.asarray(image).reshape(*sides, -1)
    writeable = pixels if pixels.flags.writeable else pixels.copy()  # torch warns about read-only arrays
    tensor = torch.from_numpy(writeable).permute(2, 0, 1)[None]
    interpolated = functional.interpolate(tensor, sides, mode=preprocessing.interpolation, antialias=True)
    result: Pixels = interpolated[0].permute(1, 2, 0).numpy()
    return result


def _resized(pixels: Pixels, box: Box | None, preprocessing: Preprocessing, sides: Sides) -> Pixels:
    if box is None:
        return resize(images.resize_and_crop(images.as_image(pixels), preprocessing), preprocessing, sides)
    left, top, width, height = box
    part = pixels[top : top + height, left : left + width]
    if preprocessing.channels == "grey":
        part = np.asarray(images.as_image(part).convert("L"))[..., None]
    return resize(part, preprocessing, sides)


def _decoded(source: images.Source, encoded: bytes, size: Sides, box: Box | None, sides: Sides) -> Pixels:
    """Return the whole image, at the lowest fast scale at which the box has at least the sides (height, width)."""
    options: dict[str, int] = {}
    if box is not None:
        min_width, min_height = math.ceil(size[0] * sides[1] / box[2]), math.ceil(size[1] * sides[0] / box[3])
        if FACTOR * min_width <= size[0] and FACTOR * min_height <= size[1]:
            options = {"min_width": min_width, "min_height": min_height, "min_factor": FACTOR}
    try:
        return jpeg.decode(encoded, **options)
    except ValueError:  # simplejpeg is stricter than Pillow, which decodes the image or names the reason
        return np.asarray(images.decode(source))


def _scaled(box: Box, size: Sides, pixels: Pixels) -> Box:
    """Return the box in the coordinates of an image that was decoded at a lower scale."""
    scale_x, scale_y = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    left, top = round(box[0] * scale_x), round(box[1] * scale_y)
    right, bottom = round((box[0] + box[2]) * scale_x), round((box[1] + box[3]) * scale_y)
    return left, top, max(1, right - left), max(1, bottom - top)
