"""The second engine: NNCF's post-training quantization of the ONNX graph, through its public API."""

from __future__ import annotations

import logging
import os

import onnx

from runtimes.errors import UnavailableError
from runtimes.evalset import EvalSet


def quantize(model: onnx.ModelProto, images: EvalSet) -> onnx.ModelProto:
    """Return NNCF's quantized copy of a float32 model, calibrated on all the images one by one.

    NNCF's telemetry is switched off before it is imported. Raises UnavailableError without NNCF.
    """
    os.environ["NNCF_CI"] = "1"  # the variable that makes NNCF leave its telemetry out
    try:
        import nncf
    except ImportError as error:
        raise UnavailableError(f"quantize.engine: nncf needs the package nncf: pip install nncf ({error})") from error
    nncf.set_log_level(logging.ERROR)
    name = model.graph.input[0].name
    quantized: onnx.ModelProto = nncf.quantize(
        model, nncf.Dataset(images.batches(1), lambda image: {name: image}), subset_size=len(images)
    )
    return quantized
