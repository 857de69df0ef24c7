"""The quantization method `nncf`: NNCF's post-training quantization of ONNX graphs."""

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
    """Return a copy of a float32 model quantized by NNCF, calibrated on all images.

    Switches NNCF's telemetry off. Raises UnavailableError if NNCF is not installed.
    """
    os.environ["NNCF_CI"] = "1"  # switches off telemetry; must be set before the import
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # hides the warning about missing CUDA
    try:
        import nncf
    except ImportError as error:
        raise UnavailableError(
            f"quantize.method: nncf needs the package nncf; install it with pip install nncf ({error})"
        ) from error
    nncf.set_log_level(logging.ERROR)
    graph_input = model.graph.input[0]
    size = graph_input.type.tensor_type.shape.dim[0].dim_value or 1  # 0 where the batch is dynamic
    starts = range(0, len(images), size)

    def batch(start: int) -> dict[str, npt.NDArray[np.float32]]:
        indices = np.arange(start, start + size) % len(images)  # fills up the last batch of a fixed size
        return {graph_input.name: images.preprocessing.normalize(images.pixels(indices))}

    with contextlib.redirect_stdout(io.StringIO()):  # hides NNCF's progress bars
        quantized: onnx.ModelProto = nncf.quantize(model, nncf.Dataset(starts, batch), subset_size=len(starts))
    return quantized
