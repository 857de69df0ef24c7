"""Choose the preprocessing of a network from options and from what its file says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

from runtimes.errors import InputError
from runtimes.preprocessing import CHANNEL_COUNTS, MAX_SIDE, Channels, Interpolation, Preprocessing, Sides

if TYPE_CHECKING:  # imports onnx, which files with a manifest do not need
    from export.inputs.image_input import ImageInput

DEFAULT = Preprocessing()
GREY_MEAN, GREY_STD = 0.449, 0.226  # the means of DEFAULT's over its channels
USUAL_CHANNELS: dict[int, Channels] = {1: "grey", 3: "rgb", 4: "rgba"}


@dataclass(frozen=True)
class PreprocessingOptions:
    """Settings of a preprocessing, each None if it is not given; a single mean or std holds for all channels."""

    resize: int | None = None
    crop: int | Sides | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: Channels | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # the Python API validates them

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> PreprocessingOptions:
        """Return options that give every setting of a preprocessing."""
        return cls(**{field.name: getattr(preprocessing, field.name) for field in fields(cls)})

    def contradict(self, preprocessing: Preprocessing) -> bool:
        """Return whether a setting that is given differs from that of a preprocessing."""
        count = preprocessing.channel_count
        for name, value in vars(self).items():
            whole = value * count if isinstance(value, tuple) and len(value) == 1 else value
            if value is not None and whole != getattr(preprocessing, name):
                return True
        return False

    def for_file(self, image: ImageInput) -> Preprocessing:
        """Return the preprocessing for a file; settings that are not given follow from the file, or are usual ones.

        The shorter side of the crop is 7/8 of that of the resized image. Raises InputError for options that contradict
        the file or each other.
        """
        channels, count = self._channels(image)
        usual_mean, usual_std = _usual(image, channels, count)
        mean, std = self._per_channel("mean", count, usual_mean), self._per_channel("std", count, usual_std)
        crop = self._usual_crop(image) if self.crop is None else self.crop
        resize = (
            self.resize
            if self.resize is not None
            else min(round(min(crop if isinstance(crop, tuple) else (crop,)) * 8 / 7), MAX_SIDE)
        )
        try:
            preprocessing = Preprocessing(
                resize, crop, self.interpolation or DEFAULT.interpolation, mean, std, channels
            )
        except ValueError as error:
            raise InputError(f"preprocessing {error}") from error
        require_fit(image, preprocessing)
        return preprocessing

    def _channels(self, image: ImageInput) -> tuple[Channels, int]:
        """Return the channels and their number."""
        count = image.channels or CHANNEL_COUNTS.get(self.channels or "array") or max(
            len(values) for values in (self.mean or (), self.std or (), DEFAULT.mean)
        )  # fmt: skip
        channels = self.channels or USUAL_CHANNELS.get(count, "array")
        if CHANNEL_COUNTS.get(channels, count) != count:
            raise InputError(f"--channels {channels} is for {CHANNEL_COUNTS[channels]} channels, and the network takes "
                             f"{count}; set --channels {USUAL_CHANNELS.get(count, 'array')}")  # fmt: skip
        return channels, count

    def _per_channel(self, name: str, count: int, usual: tuple[float, ...]) -> tuple[float, ...]:
        values: tuple[float, ...] = getattr(self, name) or usual
        values = values * count if len(values) == 1 else values
        if len(values) != count:
            example = ",".join(["0.5"] * count) if count < 5 else "0.5"
            raise InputError(f"--{name}: give one number, or one for each of {count} channels, as in {example}; not "
                             f"{len(values)}")  # fmt: skip
        return values

    def _usual_crop(self, image: ImageInput) -> int | Sides:
        """Return the file's size; an open side is as long as the other one, or 224 pixels."""
        assert isinstance(DEFAULT.crop, int)
        usual = DEFAULT.crop if self.resize is None else min(DEFAULT.crop, self.resize)
        height, width = image.sides
        return height or width or usual, width or height or usual


NONE_GIVEN = PreprocessingOptions()


def require_fit(image: ImageInput, preprocessing: Preprocessing) -> None:
    """Raise InputError unless a preprocessing gives what a file takes."""
    if image.channels not in (None, preprocessing.channel_count):
        raise InputError(
            f"takes images of {image.channels} channels, and the preprocessing gives {preprocessing.channel_count} "
            f"({preprocessing.channels}); set --channels {USUAL_CHANNELS.get(image.channels or 0, 'array')}"
        )
    pairs = zip(image.sides, (preprocessing.height, preprocessing.width), strict=True)
    if all(side in (None, wanted) for side, wanted in pairs):
        return
    cure = (image.height or preprocessing.height, image.width or preprocessing.width)
    height, width = image.sides_text.split("x") if "x" in image.sides_text else (image.sides_text,) * 2
    raise InputError(
        f"takes images of {height} x {width} pixels, and the preprocessing crops to "
        f"{preprocessing.height} x {preprocessing.width}; set --crop {crop_text(cure)}"
    )


def crop_text(sides: Sides) -> str:
    """Return height and width as --crop takes them."""
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def raw_pixels(preprocessing: Preprocessing) -> Preprocessing:
    """Return the same preprocessing without normalisation: the network takes pixels in 0 to 255."""
    count = preprocessing.channel_count
    return replace(preprocessing, mean=(0.0,) * count, std=(1 / 255,) * count)


def options_text(preprocessing: Preprocessing) -> str:
    """Return the options of the command line that give a preprocessing with bilinear interpolation."""
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    order = "" if preprocessing.channels == "rgb" else f" --channels {preprocessing.channels}"
    sides = f"--resize {preprocessing.resize} --crop {preprocessing.crop_text}"
    return f"{sides} --mean {mean} --std {std}{order}"


def described(preprocessing: Preprocessing) -> str:
    """Return all settings in one line."""
    mean, std = (",".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    order = "" if preprocessing.channels == "rgb" else f", channels {preprocessing.channels}"
    sides = f"resize {preprocessing.resize}, crop {preprocessing.crop_text}, {preprocessing.interpolation}"
    return f"{sides}, mean {mean}, std {std}{order}"


def _usual(image: ImageInput, channels: Channels, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the usual mean and std: of ImageNet, or of pixels in 0 to 255 for a file that normalises them itself."""
    if image.dtype == "uint8":
        return (0.0,), (1 / 255,)
    if channels in ("rgb", "bgr") and count == 3:
        step = 1 if channels == "rgb" else -1
        return DEFAULT.mean[::step], DEFAULT.std[::step]
    return (GREY_MEAN,), (GREY_STD,)
