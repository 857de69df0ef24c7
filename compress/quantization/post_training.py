"""Post-training quantization of a float32 ONNX network by one of two engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import onnx

from compress.quantization import nncf_engine
from compress.quantization.calibration import min_max_ranges
from compress.quantization.schemes import SCHEMES
from export.quantize import insert_qdq, tensors_to_calibrate
from runtimes.evalset import EvalSet
from runtimes.measure import Progress
from runtimes.target import InstructionSet

# ONNX Runtime's switch to kernels that don't saturate on x86 without VNNI; processors with VNNI ignore it.
EXACT_KERNELS = {"session.x64quantprecision": "1"}


@dataclass(frozen=True)
class Result:
    """A quantized model, the name of its scheme, session options that it needs, and facts for manifest and report."""

    model: onnx.ModelProto
    scheme: str
    session_options: dict[str, str]
    facts: dict[str, Any]


def quantize(
    model: onnx.ModelProto,
    images: EvalSet,
    instruction_set: InstructionSet,
    engine: Literal["compress", "nncf"],
    progress: Progress,
) -> Result:
    """Quantize a float32 model for an instruction set with ranges from the images.

    Nothing saturates in silence: where the kernels could, our engine gives weights 7 bits, and NNCF's files, which have
    8, carry the session option that makes ONNX Runtime use exact kernels.
    """
    facts: dict[str, Any] = {"engine": engine, "calibration_images": len(images), "calibration_sha256": images.sha256}
    if engine == "nncf":
        options = EXACT_KERNELS if instruction_set == "x86-avx2" else {}
        return Result(nncf_engine.quantize(model, images), "nncf", options, facts)
    scheme = SCHEMES[instruction_set]
    ranges = min_max_ranges(model, tensors_to_calibrate(model), images, progress)
    quantized = insert_qdq(model, ranges, scheme)
    facts |= {"weight_bits": quantized.weight_bits, "float_ops": quantized.float_ops}
    return Result(quantized.model, scheme.name, {}, facts)
