"""Preprocessing of images: part of the manifest, so that host and board do the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from runtimes.files import Json

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels = Literal["rgb", "bgr", "grey", "rgba", "array"]
Sides = tuple[int, int]
CHANNEL_COUNTS: dict[Channels, int] = {"rgb": 3, "bgr": 3, "grey": 1, "rgba": 4}  # those of `array` are free
MAX_SIDE = 4096
SMALLEST_STD = 1 / 65535  # gives the network the values of 16-bit pixels


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, then `(x / 255 - mean) / std` per channel.

    resize: shorter side in pixels; for a crop that is no square, that of the smallest rectangle in the crop's
        proportions which the resized image covers.
    crop: side of the square in pixels, or [height, width]; the shorter side is at most `resize`.
    interpolation: method of the resizing.
    mean, std: of each channel in the order of `channels`, for pixels in 0 to 1; values for pixels in 0 to 255 are
        refused.
    channels: order of the network's channels; `array` is for networks whose images are uint8 arrays (height, width,
        channels) in .npy files.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold one

    resize: int = 256
    crop: int | Sides = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        self._check_sides()
        for name, value, known in (("an interpolation", self.interpolation, Interpolation),
                                   ("channels", self.channels, Channels)):  # fmt: skip
            if value not in get_args(known):
                raise ValueError(f"must have {name} of {get_args(known)}, not {value!r}")
        count = CHANNEL_COUNTS.get(self.channels, len(self.mean))
        if not len(self.mean) == len(self.std) == count > 0 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError(f"must have as many finite numbers for mean and for std as channels ({self.channels}: "
                             f"{count}), not {len(self.mean)} and {len(self.std)}")  # fmt: skip
        if min(self.std) <= 0:
            raise ValueError(f"must have a std above 0, not {min(self.std)}")
        _require_unit_range("mean", self.mean)
        _require_unit_range("std", self.std)
        if min(self.std) < SMALLEST_STD:
            raise ValueError(
                f"must have a std of at least 1/65535, not {min(self.std):g}: inputs would be larger than pixels of 16 "
                "bits; give the values for pixels in 0 to 1"
            )

    def _check_sides(self) -> None:
        """Raise ValueError for sides out of bounds; write a square's crop as one number."""
        sides = (self.crop, self.crop) if not isinstance(self.crop, (tuple, list)) else tuple(self.crop)
        if len(sides) != 2 or not all(type(side) is int for side in (*sides, self.resize)):
            raise ValueError(f"must have a crop of one whole number or of [height, width], and a whole number for "
                             f"resize, not {self.crop!r} and {self.resize!r}")  # fmt: skip
        object.__setattr__(self, "crop", sides[0] if sides[0] == sides[1] else sides)
        if not 1 <= min(sides) <= self.resize <= MAX_SIDE or max(self.resized) > MAX_SIDE:
            raise ValueError(
                f"must have 1 <= crop <= resize <= {MAX_SIDE}, not crop {self.crop_text} and resize {self.resize}"
            )

    @property
    def height(self) -> int:
        """Height of the crop."""
        return self.crop if isinstance(self.crop, int) else self.crop[0]

    @property
    def width(self) -> int:
        """Width of the crop."""
        return self.crop if isinstance(self.crop, int) else self.crop[1]

    @property
    def crop_text(self) -> str:
        """The crop as on the command line: 224, or 48x192 of height and width."""
        return str(self.crop) if isinstance(self.crop, int) else f"{self.height}x{self.width}"

    @property
    def channel_count(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of a prepared image: (height, width, channels)."""
        return self.height, self.width, self.channel_count

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of a network's input for one image: (channels, height, width)."""
        return self.channel_count, self.height, self.width

    @property
    def resized(self) -> Sides:
        """(height, width) of the rectangle that the resized image covers, with its shorter or its longer side equal."""
        shorter = min(self.height, self.width)
        return round(self.resize * self.height / shorter), round(self.resize * self.width / shorter)

    def resized_size(self, width: int, height: int) -> Sides:
        """Return the (width, height) to which an image of this size is resized."""
        rows, columns = self.resized
        scale = max(rows / height, columns / width)
        return max(columns, round(width * scale)), max(rows, round(height * scale))

    @property
    def scale_and_offset(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return float32 (C,) arrays with `pixel * scale + offset` equal to the normalisation."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def normalize(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalise uint8 `(N, H, W, C)` to C-contiguous float32 `(N, C, H, W)`."""
        scale, offset = self.scale_and_offset
        return np.ascontiguousarray((images.astype(np.float32) * scale + offset).transpose(0, 3, 1, 2))

    @classmethod
    def from_json(cls, fields: Json) -> Preprocessing:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for missing, unknown or wrong fields."""
        sides = {name: fields[name] for name in ("resize", "crop", "interpolation")}  # a default would be wrong pixels
        return cls(**{**fields, **sides, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def _require_unit_range(name: str, values: tuple[float, ...]) -> None:
    """Raise ValueError unless all values lie in 0 to 1."""
    if min(values) >= 0 and max(values) <= 1:
        return
    listed = ", ".join(f"{value:g}" for value in values)
    divided = ", ".join(f"{value / 255:.4g}" for value in values)
    cure = f"pixels are divided by 255 first, so divide by 255 what is meant for 0 to 255: {divided}"
    raise ValueError(f"must have a {name} in 0 to 1, not {listed}" + (f"; {cure}" if max(values) > 1 else ""))
