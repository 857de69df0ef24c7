"""The recipe's section `quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from compress.recipe.section import Config

LEARNED = "quantization.json"  # what the stage qat leaves beside its weights

Method = Literal["compress", "nncf"]
RangeMethod = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]


@dataclass(frozen=True)
class CalibrationConfig:
    """How ranges are chosen from the values that a tensor takes.

    min-max: the least and the greatest. moving-average: of each image's least and greatest, as in Jacob et al., CVPR
    2018, section 3.1, with the constant 0.01 of ONNX Runtime's and PyTorch's; it is long in forgetting the first image,
    which after 100 more still weighs 37 %. percentile: so that `percentile` % lie inside. entropy: as TensorRT, least
    divergence of the distributions. mse: least squared error.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # recipes hold one

    method: RangeMethod = "min-max"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in get_args(RangeMethod):
            raise ValueError(f"must have a method of {', '.join(get_args(RangeMethod))}, not {self.method!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"must have a percentile above 50 and at most 100, not {self.percentile}")


class Quantize(Config):
    """How float32 becomes INT8.

    calibration_images: at most this many, drawn from the training split by the seed; a fifth, or all beyond 128, judge.
    max_top1_drop_pp, min_agreement: what INT8 may lose on the held-out images, in percentage points or as a share of
    images with float32's answer (for images without labels); layers go back to float until that holds.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"engine": "method"}

    method: Method = "compress"
    calibration_images: Annotated[int, Field(ge=1, le=100_000)] = 256
    calibration: CalibrationConfig = CalibrationConfig()
    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
