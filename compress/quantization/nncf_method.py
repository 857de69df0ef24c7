"""The second engine: NNCF's post-training quantization of the ONNX graph, through its public API."""

from __future__ import annotations

import contextlib
import io
import logging
import os

import numpy as np
import numpy.typing as npt
import onnx

from runtimes.errors import UnavailableError
from runtimes.evalset import EvalSet


def quantize(model: onnx.ModelProto, images: EvalSet) -> onnx.ModelProto:
    """Return NNCF's quantized copy of a float32 model, calibrated on all the images.

    NNCF's telemetry is switched off before it is imported. Raises UnavailableError without NNCF.
    """
    os.environ["NNCF_CI"] = "1"  # the variable that makes NNCF leave its telemetry out
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no CUDA
    try:
        import nncf
    except ImportError as error:
        raise UnavailableError(
            f"quantize.method: nncf needs the package nncf; install it with pip install nncf ({error})"
        ) from error
    nncf.set_log_level(logging.ERROR)
    given = model.graph.input[0]
    size = given.type.tensor_type.shape.dim[0].dim_value or 1  # 0 where the batch is dynamic
    starts = range(0, len(images), size)

    def batch(start: int) -> dict[str, npt.NDArray[np.float32]]:
        indices = np.arange(start, start + size) % len(images)  # a fixed batch has to be full: begin again
        return {given.name: images.preprocessing.normalize(images.pixels(indices))}

    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars there
        quantized: onnx.ModelProto = nncf.quantize(model, nncf.Dataset(starts, batch), subset_size=len(starts))
    return quantized
