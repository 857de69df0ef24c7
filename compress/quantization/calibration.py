"""Calibration: the range of every tensor that will be quantized, in memory that does not grow with the images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.measure import Progress

BATCH = 16


def min_max_ranges(
    model: onnx.ModelProto, tensors: list[str], images: EvalSet, progress: Progress
) -> dict[str, tuple[float, float]]:
    """Return the least and greatest value of each tensor over all images, run in float32 by ONNX Runtime.

    Raises InputError that names tensor and image where a value is NaN or infinite.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {output.name for output in probe.graph.output} | {value.name for value in probe.graph.input}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name
    watched = [name for name in tensors if name != input_name]
    fixed = session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else BATCH
    ranges = dict.fromkeys(tensors, (np.inf, -np.inf))
    for start in range(0, len(images), size):
        end = start + size if size == fixed else min(start + size, len(images))
        indices = np.arange(start, end) % len(images)  # a fixed batch has to be full: begin again
        batch = images.preprocessing.normalize(images.images[indices])
        values = dict(zip(watched, session.run(watched, {input_name: batch}), strict=True)) if watched else {}
        for name, value in {**values, input_name: batch}.items():
            if name in ranges:
                ranges[name] = _widened(ranges[name], name, value, [images.names[index] for index in indices])
        progress("calibrate", min(start + size, len(images)), len(images))
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


def _widened(
    known: tuple[float, float], name: str, values: npt.NDArray[np.float32], images: list[str]
) -> tuple[float, float]:
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        first = next(image for image, value in zip(images, values, strict=True) if not np.isfinite(value).all())
        raise InputError(f"calibration: tensor {name} is NaN or infinite for the image {first}")
    return min(known[0], low), max(known[1], high)
