"""Preprocessing of images: part of the manifest, so that host and board do the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from runtimes.files import Json

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Triple = tuple[float, float, float]
SMALLEST_STD = 1 / 65535  # gives the network the values of 16-bit pixels


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre square, then `(x / 255 - mean) / std` per RGB channel.

    resize: shorter side in pixels.
    crop: side of the square in pixels; at most `resize`.
    interpolation: method of the resizing.
    mean, std: of red, green and blue, for pixels in 0 to 1; values for pixels in 0 to 255 are refused.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold one

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "bilinear"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not all(type(side) is int for side in (self.crop, self.resize)) or not 1 <= self.crop <= self.resize <= 4096:
            raise ValueError(f"must have 1 <= crop <= resize <= 4096, not crop {self.crop} and resize {self.resize}")
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(f"must have an interpolation of {get_args(Interpolation)}, not {self.interpolation!r}")
        if not len(self.mean) == len(self.std) == 3 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError("must have three finite numbers for mean and three for std (red, green, blue)")
        if min(self.std) <= 0:
            raise ValueError(f"must have a std above 0, not {min(self.std)}")
        _require_unit_range("mean", self.mean)
        _require_unit_range("std", self.std)
        if min(self.std) < SMALLEST_STD:
            raise ValueError(
                f"must have a std of at least 1/65535, not {min(self.std):g}: inputs would be larger than pixels of 16 "
                "bits; give the values for pixels in 0 to 1"
            )

    @property
    def scale_and_offset(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return float32 (3,) arrays with `pixel * scale + offset` equal to the normalisation."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def normalize(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalise uint8 `(N, H, W, 3)` RGB to C-contiguous float32 `(N, 3, H, W)`."""
        scale, offset = self.scale_and_offset
        return np.ascontiguousarray((images.astype(np.float32) * scale + offset).transpose(0, 3, 1, 2))

    @classmethod
    def from_json(cls, fields: Json) -> Preprocessing:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for missing, unknown or wrong fields."""
        sides = {name: fields[name] for name in ("resize", "crop", "interpolation")}  # a default would be wrong pixels
        return cls(**{**fields, **sides, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def _require_unit_range(name: str, values: Triple) -> None:
    """Raise ValueError unless all values lie in 0 to 1."""
    if min(values) >= 0 and max(values) <= 1:
        return
    listed = ", ".join(f"{value:g}" for value in values)
    divided = ", ".join(f"{value / 255:.4g}" for value in values)
    cure = f"pixels are divided by 255 first, so divide by 255 what is meant for 0 to 255: {divided}"
    raise ValueError(f"must have a {name} in 0 to 1, not {listed}" + (f"; {cure}" if max(values) > 1 else ""))
