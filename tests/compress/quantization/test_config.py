"""Defaults, validation and renamed keys of the recipe's section `quantize`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compress.quantization.config import CalibrationConfig, Quantize


def test_the_defaults() -> None:
    assert Quantize().model_dump() == {
        "method": "compress", "calibration_images": 256, "calibration": {"method": "min-max", "percentile": 99.99},
        "max_top1_drop_pp": None, "min_agreement": None, "min_sqnr_db": None, "allow_poor": False,
    }  # fmt: skip


@pytest.mark.parametrize("content", [
    {"method": "nncf"}, {"calibration_images": 1}, {"calibration_images": 100_000}, {"max_top1_drop_pp": 0},
    {"max_top1_drop_pp": 100}, {"min_agreement": 0}, {"min_agreement": 1}, {"min_sqnr_db": 30},
    {"calibration": {"method": "percentile", "percentile": 99.9}}, {"calibration": {"method": "mse"}},
])  # fmt: skip
def test_valid_settings_are_kept(content: dict[str, Any]) -> None:
    kept = Quantize.model_validate(content).model_dump(exclude_unset=True)
    for name, value in content.items():
        assert kept[name] == value or value.items() <= kept[name].items()


@pytest.mark.parametrize(("content", "place"), [
    ({"method": "tflite"}, "method"), ({"calibration_images": 0}, "calibration_images"),
    ({"calibration_images": 100_001}, "calibration_images"), ({"calibration_images": 1.5}, "calibration_images"),
    ({"max_top1_drop_pp": -0.1}, "max_top1_drop_pp"), ({"max_top1_drop_pp": 101}, "max_top1_drop_pp"),
    ({"min_agreement": 1.1}, "min_agreement"), ({"min_agreement": -1}, "min_agreement"),
    ({"min_sqnr_db": -1}, "min_sqnr_db"), ({"min_agreement": float("nan")}, "min_agreement"), ({"bits": 4}, "bits"),
    ({"calibration": {"method": "max"}}, "calibration"), ({"calibration": {"percentile": 50}}, "calibration"),
    ({"calibration": {"percentile": 100.1}}, "calibration"), ({"calibration": {"bins": 3}}, "calibration"),
])  # fmt: skip
def test_an_invalid_setting_is_reported_with_its_key(content: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Quantize.model_validate(content)
    assert {error["loc"][0] for error in refused.value.errors()} == {place}


@pytest.mark.parametrize(("content", "message"), [
    ({"min_agreement": 1, "calibration_images": 9}, "min_agreement: 9 calibration images are too few.*at least 10"),
    ({"max_top1_drop_pp": 1, "calibration_images": 5}, "max_top1_drop_pp: 5 calibration images are too few"),
    ({"min_sqnr_db": 30, "method": "nncf"}, "min_sqnr_db: the method nncf has no accuracy budget"),
    ({"min_agreement": 0.5, "method": "nncf"}, "min_agreement: the method nncf has no accuracy budget"),
    ({"max_top1_drop_pp": 5, "method": "nncf"}, "max_top1_drop_pp: the method nncf has no accuracy budget"),
])  # fmt: skip
def test_a_budget_that_could_not_fail_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Quantize.model_validate(content)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Quantize().method = "nncf"
    with pytest.raises(AttributeError):
        CalibrationConfig().method = "mse"  # type: ignore[misc]


def test_the_old_key_engine_works_with_a_warning_that_names_the_new_key() -> None:
    with pytest.warns(DeprecationWarning, match="quantize: 'engine' is now called 'method'"):
        assert Quantize.model_validate({"engine": "nncf"}) == Quantize(method="nncf")


def test_the_old_and_the_new_key_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="has both 'method' and its old name 'engine'; remove 'engine'"):
        Quantize.model_validate({"engine": "nncf", "method": "nncf"})
