"""Calibration: measure the range of every tensor to quantize, in constant memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from compress.process.code_digest import code_digest
from compress.quantization.config import CalibrationConfig, RangeMethod
from compress.quantization.histograms import Histogram, entropy_threshold, mse_range, percentile_range
from compress.quantization.ort_graph import visit_tensors
from compress.quantization.request import Range
from runtimes.console import Console
from runtimes.environment import package_versions
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import write_json

Values = npt.NDArray[np.float32]

AVERAGING = 0.01  # weight of the newest image in a moving average


def calibrate(
    model: onnx.ModelProto,
    tensors: list[str],
    images: EvalSet,
    settings: CalibrationConfig,
    console: Console,
    cache: Path | None = None,
) -> dict[str, Range]:
    """Return the (low, high) of each tensor over all images, in the tensor's unit, computed by ONNX Runtime in float32.

    model: float32, with one image input. tensors: names in its graph.
    cache: folder for computed ranges, with a hash of all inputs as file name; unreadable files are replaced.
    Images are read once, or twice for methods with histograms. A range may exclude 0, except with the method
    `mse`.
    Raises InputError for NaN or infinity, with the names of tensor and image, and for an empty set of images.
    """
    if cache is None:
        return _measure(model, tensors, images, settings, console)
    inputs = _inputs(model, tensors, images, settings)
    path = cache / f"{hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()}.json"
    ranges = _cached(path, tensors)
    if ranges is None:
        ranges = _measure(model, tensors, images, settings, console)
        write_json(path, {"inputs": inputs, "ranges": ranges})
    return ranges


def _inputs(model: onnx.ModelProto, tensors: list[str], images: EvalSet, settings: CalibrationConfig) -> dict[str, Any]:
    return {
        "model": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "tensors": sorted(tensors),
        "images": {"sha256": images.sha256, "count": len(images), "preprocessing": asdict(images.preprocessing)},
        "settings": asdict(settings),
        "packages": package_versions(("numpy", "onnxruntime")),
        "code": code_digest(),
    }


def _cached(path: Path, tensors: list[str]) -> dict[str, Range] | None:
    try:
        ranges = json.loads(path.read_bytes())["ranges"]
        cached = {name: (float(ranges[name][0]), float(ranges[name][1])) for name in tensors}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return cached if all(-math.inf < low <= high < math.inf for low, high in cached.values()) else None


def _measure(
    model: onnx.ModelProto, tensors: list[str], images: EvalSet, settings: CalibrationConfig, console: Console
) -> dict[str, Range]:
    if not len(images):
        raise InputError("calibration: there are no images")
    names = list(dict.fromkeys(tensors))
    passes = 2 if settings.method in HISTOGRAM_RULES else 1
    merge = MERGE_RULES[settings.method]
    ranges: dict[str, Range] = {}

    def widen(name: str, values: Values, indices: range) -> None:
        ranges[name] = merge(ranges.get(name), _extremes(name, values, [images.names[index] for index in indices]))

    visit_tensors(model, names, images, widen, lambda done: console.progress("calibrate", done, passes * len(images)))
    if passes == 2:
        histograms = {name: _histogram(known, settings) for name, known in ranges.items() if known[0] < known[1]}

        def count(name: str, values: Values, indices: range) -> None:
            if name in histograms:
                histograms[name].add(values)

        visit_tensors(
            model, names, images, count,
            lambda done: console.progress("calibrate", len(images) + done, passes * len(images)),
        )  # fmt: skip
        for name, histogram in histograms.items():
            ranges[name] = HISTOGRAM_RULES[settings.method](histogram, ranges[name], settings)
    if settings.method == "mse":
        ranges = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in ranges.items()}
    return {name: ranges[name] for name in tensors}


def _extremes(name: str, values: Values, images: list[str]) -> list[Range]:
    """Return each image's smallest and largest value; raise InputError if one is not finite."""
    flat = values.reshape(len(images), -1)
    lows, highs = flat.min(axis=1), flat.max(axis=1)
    finite = np.isfinite(lows) & np.isfinite(highs)
    if not finite.all():
        raise InputError(f"calibration: tensor {name} is NaN or infinite for the image {images[int(finite.argmin())]}")
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def _widen(known: Range | None, extremes: list[Range]) -> Range:
    lows, highs = zip(*extremes, *([known] if known else []), strict=True)
    return min(lows), max(highs)


def _update_average(known: Range | None, extremes: list[Range]) -> Range:
    """Update the moving average with each image in turn; the first image initializes it.

    Source: Jacob et al. 2018, section 3.1, and onnxruntime 1.32, MinMaxCalibrater.merge_range with moving_average. A
    step is one image here, so that the result does not depend on the batch size; in ONNX Runtime it is one
    `collect_data`.
    """
    for low, high in extremes:
        known = known or (low, high)
        known = known[0] + AVERAGING * (low - known[0]), known[1] + AVERAGING * (high - known[1])
    assert known is not None
    return known


def _histogram(known: Range, settings: CalibrationConfig) -> Histogram:
    if settings.method == "entropy":
        return Histogram(0.0, max(-known[0], known[1]), magnitudes=True)
    return Histogram(*known)


def _by_percentile(histogram: Histogram, known: Range, settings: CalibrationConfig) -> Range:
    return percentile_range(histogram, settings.percentile)


def _by_entropy(histogram: Histogram, known: Range, settings: CalibrationConfig) -> Range:
    one_sign = known[0] >= 0 or known[1] <= 0
    threshold = entropy_threshold(histogram, 256 if one_sign else 128)
    return max(known[0], -threshold), min(known[1], threshold)


def _by_mse(histogram: Histogram, known: Range, settings: CalibrationConfig) -> Range:
    return mse_range(histogram)


# Rule by which each method updates a tensor's range with the extremes of a batch.
MERGE_RULES: dict[RangeMethod, Callable[[Range | None, list[Range]], Range]] = {
    "min-max": _widen,
    "moving-average": _update_average,
    "percentile": _widen,
    "entropy": _widen,
    "mse": _widen,
}
# Rule by which a method chooses the range from a histogram of the values from `known[0]` to `known[1]`.
HISTOGRAM_RULES: dict[RangeMethod, Callable[[Histogram, Range, CalibrationConfig], Range]] = {
    "percentile": _by_percentile,
    "entropy": _by_entropy,
    "mse": _by_mse,
}
