from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from compress.quantization.config import Quantize
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing


def request() -> QuantizationRequest:
    images = EvalSet(np.zeros((1, 8, 8, 3), np.uint8), None, ("0",), ("a",), Preprocessing(8, 8), "digest")
    return QuantizationRequest(images, SCHEMES["arm64"], Quantize())


def test_the_defaults_calibrate_each_time_and_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    defaults = request()
    assert (defaults.cache, defaults.learned) == (None, None)
    defaults.console.say("a line")
    defaults.console.progress("work", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_requests_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        request().settings = Quantize(method="nncf")  # type: ignore[misc]
