"""The recipe's section `quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from compress.recipe.section import Config

MIN_IMAGES = 10  # fewer calibration images are too few to hold some out for judging
AGREEMENT_BUDGETS = ("max_top1_drop_pp", "min_agreement")  # keys of `Quantize` that need classes, boxes or pixels
BUDGETS = (*AGREEMENT_BUDGETS, "min_sqnr_db")
LEARNED = "quantization.json"  # file of learned ranges, written by the stage qat beside its weights

Method = Literal["compress", "nncf"]
RangeMethod = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]


@dataclass(frozen=True)
class CalibrationConfig:
    """Method that chooses the range of a tensor from its values.

    method: `min-max`: smallest and largest value. `moving-average`: exponential moving average of each image's
        smallest and largest value (Jacob et al., CVPR 2018, section 3.1) with the constant 0.01 of ONNX Runtime and
        PyTorch; after 100 images, the first still has a weight of 37 %. `percentile`: `percentile` % of the values are
        inside. `entropy`: smallest KL divergence between the distributions before and after quantization, as in
        TensorRT. `mse`: smallest squared error.
    percentile: of the values that the range of the method `percentile` contains.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # unknown keys of a recipe are errors

    method: RangeMethod = "min-max"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in get_args(RangeMethod):
            raise ValueError(f"must have a method of {', '.join(get_args(RangeMethod))}, not {self.method!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"must have a percentile above 50 and at most 100, not {self.percentile}")


class Quantize(Config):
    """Quantization from float32 to INT8.

    The most sensitive operators are reverted to float until the accuracy floor is met: an SQNR of 10 dB and an
    agreement of 0.9 on the held-out images. No file below is written, except with `allow_poor`. The accuracy budgets
    ask for more; they need at least 10 calibration images. The method nncf has neither floor nor budgets and ignores
    `calibration`.

    method: `compress` for this package, `nncf` for NNCF's post-training quantization.
    calibration_images: maximum number, drawn from the training split by the seed. Some are held out to judge accuracy:
        the larger of a third and all beyond 128, but at most 256; of fewer than 10 images, none, and no agreement is
        reported. Ranges come from all images.
    calibration: method that chooses the range of a tensor.
    max_top1_drop_pp: accuracy budget: allowed loss of top-1 on the held-out images, in percentage points.
    min_agreement: accuracy budget without labels: required share of held-out images with the same top-1 as float32; of
        detectors the mAP (IoU 0.5 to 0.95) against float32's boxes, of segmentations the share of equal pixels.
    min_sqnr_db: accuracy budget for any outputs: required SQNR on the held-out images in dB, of the worst output.
    allow_poor: revert no operators for the accuracy floor, and write the file however inaccurate it is.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"engine": "method"}

    method: Method = "compress"
    calibration_images: Annotated[int, Field(ge=1, le=100_000)] = 256
    calibration: CalibrationConfig = CalibrationConfig()
    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] | None = None
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    min_sqnr_db: Annotated[float, Field(ge=0, le=200)] | None = None
    allow_poor: bool = False

    @model_validator(mode="after")
    def _budgets_can_fail(self) -> Quantize:
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if budgets and self.method == "nncf":
            raise ValueError(f"{budgets[0]}: the method nncf has no accuracy budget; remove it or use method: compress")
        if budgets and self.calibration_images < MIN_IMAGES:
            raise ValueError(
                f"{budgets[0]}: {self.calibration_images} calibration images are too few to hold some out; "
                f"give at least {MIN_IMAGES}"
            )
        return self
