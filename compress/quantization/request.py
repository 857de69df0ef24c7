"""The request type of INT8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compress.quantization.config import Quantize
from export.scheme import Scheme
from runtimes.console import Console, SilentConsole
from runtimes.evalset import EvalSet

Range = tuple[float, float]  # (low, high) of a tensor, in its own unit


@dataclass(frozen=True)
class QuantizationRequest:
    """Settings and images of a quantization.

    images: calibration images; ranges come from all, accuracy is judged on some of them.
    scheme: form of INT8 that the target's runtime needs.
    settings: the recipe's section `quantize`.
    console: shows attempts and progress.
    cache: folder for calibrated ranges, None to calibrate each time.
    learned: ranges of a network trained by the stage `qat`, which replace calibration; None to calibrate.
    """

    images: EvalSet
    scheme: Scheme
    settings: Quantize
    console: Console = field(default_factory=SilentConsole)
    cache: Path | None = None
    learned: Mapping[str, Range] | None = None
