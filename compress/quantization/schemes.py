"""Quantization schemes of the supported targets."""

from __future__ import annotations

from typing import Literal, get_args

from export.scheme import Scheme
from runtimes import environment
from runtimes.errors import InputError
from runtimes.target import Target

SchemeName = Literal["x86-avx2", "x86-vnni", "arm64", "tensorrt", "generic"]

# Operators with integer kernels in ONNX Runtime on a CPU. Activations are uint8 and weights int8: on x86, int8
# activations would use slow kernels; on arm64, uint8 activations give the same integers.
ORT_OPERATORS = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})

SCHEMES: dict[str, Scheme] = {
    # Without VNNI, `vpmaddubsw` adds two products in int16, which saturates without notice.
    "x86-avx2": Scheme("x86-avx2", False, "every-operator", True, "neighbours", ORT_OPERATORS),
    "x86-vnni": Scheme("x86-vnni", False, "every-operator", True, "exact", ORT_OPERATORS),
    # With and without dot product instructions: NEON widens every product to 32 bits before it can overflow.
    "arm64": Scheme("arm64", False, "every-operator", True, "exact", ORT_OPERATORS),
    # One file for TensorRT 8.6 to 11 and TensorRT-RTX: symmetric int8, float biases, quantized residual shortcuts.
    "tensorrt": Scheme("tensorrt", True, "layer-inputs", False, "exact"),
    # For unknown processors: cannot overflow on any processor that has the operators.
    "generic": Scheme("generic", False, "every-operator", True, "unknown", ORT_OPERATORS),
}
assert set(SCHEMES) == set(get_args(SchemeName))


def scheme_named(name: str) -> Scheme:
    """Return the scheme of that name, or this machine's for "auto"; raise InputError for an unknown name."""
    if name == "auto":
        return SCHEMES[environment.detect_instruction_set()]
    if name not in SCHEMES:
        raise InputError(f"unknown quantization scheme '{name}'; choose one of auto, {', '.join(SCHEMES)}")
    return SCHEMES[name]


def scheme_for(target: Target) -> Scheme:
    """Return the scheme for a target's runtime and processor."""
    return SCHEMES["tensorrt" if target.runtime == "trt" else environment.instruction_set_of(target)]
