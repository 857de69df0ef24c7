"""The section `preprocessing` of a recipe: settings that are not given follow from the others."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from compress.recipe.section import Config
from runtimes.files import Json
from runtimes.preprocessing import CHANNEL_COUNTS, MAX_SIDE, Channels, Interpolation, Preprocessing

ChannelValues = tuple[float, ...]

USUAL = Preprocessing()
NAMES: dict[int, Channels] = {1: "grey", 3: "rgb", 4: "rgba"}


def _require_sides(value: object) -> object:
    """Raise ValueError for a crop that is neither one side nor two."""
    sides = value if isinstance(value, list | tuple) else [value]
    are_whole = all(isinstance(side, int | float) and side in range(1, MAX_SIDE + 1) for side in sides)
    if not (are_whole and len(sides) in (1, 2)):
        raise ValueError(f"must be one side in pixels, or [height, width], of 1 to {MAX_SIDE}, not {value!r}")
    return value if len(sides) == 2 else sides[0]


def _listed(value: object) -> object:
    """Return one number for all channels as a list."""
    return value if isinstance(value, list | tuple) else [value]


Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
PerChannel = Annotated[ChannelValues, BeforeValidator(_listed, float | ChannelValues)]


def _without_default(schema: Json) -> None:
    """Remove the default null from a key's JSON Schema, whose description says what is usual."""
    del schema["default"]


DERIVED: Any = Field(default=None, json_schema_extra=_without_default)  # Any: so that mypy takes it for any field


class PreprocessingSection(Config):
    """Resize an image, crop its centre, then compute `(x / 255 - mean) / std` per channel.

    resize: shorter side in pixels to which an image is resized, its proportions kept; by default in the network's
        ratio to the crop's shorter side, 256 to 224 for most. For a crop that is no square, the image is resized to the
        smallest size that covers the rectangle of this shorter side and the crop's proportions: with resize 48 and crop
        [48, 192], an image has at least 48 rows and 192 columns.
    crop: side of the square in pixels, or [height, width]; the shorter side is at most `resize`. By default as the
        network was trained: 224 for most.
    interpolation: method of the resizing; by default as the network was trained.
    mean, std: of the channels, for pixels in 0 to 1; one number for all channels, or a list with one for each. By
        default as the network was trained: ImageNet's for most; for grey images the average of the three channels; for
        the alpha channel 0.5 and 0.5.
    channels: of the network's input: `rgb`; `grey`, also written 1; or `rgba`, also written 4. Images of other
        channels are converted. Weights of a network for RGB images are adapted to the others.
    """

    resize: Side | None = DERIVED
    crop: Annotated[Side | tuple[Side, Side], BeforeValidator(_require_sides, Side | tuple[Side, Side])] = Field(
        default=224, json_schema_extra=_without_default
    )
    interpolation: Interpolation = Field(default=USUAL.interpolation, json_schema_extra=_without_default)
    mean: PerChannel | None = DERIVED
    std: PerChannel | None = DERIVED
    channels: Literal["rgb", "grey", "rgba", 1, 3, 4] = "rgb"

    @model_validator(mode="before")
    @classmethod
    def _from_preprocessing(cls, content: object) -> object:
        """Accept a complete preprocessing, too."""
        return asdict(content) if isinstance(content, Preprocessing) else content

    def complete(self) -> Preprocessing:
        """Return all settings; raises ValueError for settings that contradict each other."""
        shorter = min(self.crop) if isinstance(self.crop, tuple) else self.crop
        resize = min(round(shorter * 8 / 7), MAX_SIDE) if self.resize is None else self.resize
        channels = self.channels if isinstance(self.channels, str) else NAMES[self.channels]
        return Preprocessing(
            resize, self.crop, self.interpolation, self._values("mean", channels), self._values("std", channels),
            channels,
        )  # fmt: skip

    def _values(self, name: str, channels: Channels) -> ChannelValues:
        """Return the mean or std of each channel."""
        values: ChannelValues | None = getattr(self, name)
        count = CHANNEL_COUNTS[channels]
        if values is None:
            return usual_values(getattr(USUAL, name), channels)
        if len(values) not in (1, count):
            advice = "give one number" if count == 1 else f"give one number, or a list of {count}"
            raise ValueError(f"{name}: has {len(values)} values, and channels: {self.channels} has {count}; {advice}")
        return values * count if len(values) == 1 else values


def usual_values(of_rgb: ChannelValues, channels: Channels) -> ChannelValues:
    """Return the mean or std for other channels, from those of red, green and blue."""
    if channels == "grey":
        return (round(float(np.mean(of_rgb)), 6),)
    return (*of_rgb, 0.5) if channels == "rgba" else of_rgb


if TYPE_CHECKING:
    RecipePreprocessing: TypeAlias = Preprocessing
else:
    RecipePreprocessing = Annotated[
        PreprocessingSection, AfterValidator(PreprocessingSection.complete), PlainSerializer(asdict)
    ]
