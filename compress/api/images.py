"""The argument `images` of the Python API: a folder, or a list of paths, arrays and Pillow images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.images.samples import Sample
from runtimes.errors import InputError
from runtimes.evalset import spread

if TYPE_CHECKING:  # Pillow takes time to import
    from PIL import Image

Item: TypeAlias = "str | Path | npt.NDArray[np.uint8] | Image.Image"
Images: TypeAlias = "str | Path | npt.NDArray[np.uint8] | Sequence[Item]"

KINDS = "a folder, a list of paths, Pillow images, or uint8 arrays (height, width, channels)"


def items_of(images: Images) -> Path | list[Item]:
    """Return the folder of images, or the images; raises InputError for anything else."""
    if isinstance(images, (str, Path)):
        return Path(images)
    if not isinstance(images, Iterable):
        raise InputError(f"images: must be {KINDS}, not {type(images).__name__}")
    items = list(images)
    if not items:
        raise InputError("images: there are none")
    return items


def size_of(items: Path | list[Item]) -> tuple[int, int] | None:
    """Return the height and width of the images if they are arrays of one size, else None."""
    if isinstance(items, Path):
        return None
    sizes = {item.shape[:2] if isinstance(item, np.ndarray) else None for item in items}
    size = sizes.pop() if len(sizes) == 1 else None
    return None if size is None or len(size) != 2 else (int(size[0]), int(size[1]))


def samples_of(items: list[Item], count: int, folder: Path) -> tuple[Sample, ...]:
    """Return at most `count` of the images, evenly spaced, without labels; those in memory are written to `folder`.

    Files and Pillow images are resized and cropped; of arrays, only those of another size than the network's. Raises
    InputError for what is no image.
    """
    return tuple(_sample(items[index], f"image {index}", folder / str(index)) for index in spread(len(items), count))


def _sample(item: Item, name: str, path: Path) -> Sample:
    if isinstance(item, (str, Path)):
        return Sample(str(item), Path(item), None)
    if isinstance(item, np.ndarray):
        return Sample(name, _saved_array(item, path.with_suffix(".npy")), None)
    from PIL import Image  # see above

    if isinstance(item, Image.Image):
        return Sample(name, _saved_picture(item, name, path.with_suffix(".tiff")), None)
    raise InputError(f"images: must be {KINDS}, not {type(item).__name__}")


def _saved_array(pixels: npt.NDArray[np.uint8], path: Path) -> Path:
    if pixels.dtype != np.uint8:
        raise InputError(f"images: must be uint8 pixels in 0 to 255, not {pixels.dtype}; give them before they are "
                         "normalized, as `preprocessing` does that")  # fmt: skip
    if pixels.ndim != 3 or (pixels.shape[0] <= 4 < pixels.shape[2]):
        raise InputError(f"images: each must be of (height, width, channels), not {pixels.shape}")
    np.save(path, pixels)
    return path


def _saved_picture(picture: Image.Image, name: str, path: Path) -> Path:
    """Write a picture without loss, so that it is read like any file: with its orientation, transparency and depth."""
    try:
        picture = picture.convert("RGBA") if "transparency" in picture.info else picture
        picture.save(path, "TIFF", exif=picture.getexif())
    except (OSError, ValueError) as error:
        raise InputError(f"images: {name} can't be used ({error})") from error
    return path
