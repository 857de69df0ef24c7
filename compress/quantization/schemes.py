"""What INT8 each kind of target wants."""

from __future__ import annotations

from typing import Literal, get_args

from export.scheme import Scheme
from runtimes import environment
from runtimes.errors import InputError
from runtimes.target import Target

SchemeName = Literal["x86-avx2", "x86-vnni", "arm64", "tensorrt", "generic"]

# ONNX Runtime's integer kernels on a CPU, which take uint8 activations and int8 weights: on x86 int8 activations fall
# out of the fast kernels, on arm64 the same file gives the same integers.
ORT_OPERATORS = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat"})

SCHEMES: dict[str, Scheme] = {
    # Without VNNI two products are added in int16 (`vpmaddubsw`), which saturates, silently.
    "x86-avx2": Scheme("x86-avx2", False, "every-operator", True, "neighbours", ORT_OPERATORS),
    "x86-vnni": Scheme("x86-vnni", False, "every-operator", True, "exact", ORT_OPERATORS),
    # With dot product instructions or without: NEON widens every product to 32 bits before it can overflow.
    "arm64": Scheme("arm64", False, "every-operator", True, "exact", ORT_OPERATORS),
    # TensorRT 8.6 to 11 and TensorRT-RTX take one file: symmetric int8, float biases, shortcuts of residuals quantized.
    "tensorrt": Scheme("tensorrt", True, "layer-inputs", False, "exact"),
    # For a processor that nobody named: right wherever the operators exist, whatever adds the products.
    "generic": Scheme("generic", False, "every-operator", True, "unknown", ORT_OPERATORS),
}
assert set(SCHEMES) == set(get_args(SchemeName))


def scheme_named(name: str) -> Scheme:
    """Return the scheme of that name, or of this machine for "auto"; raises InputError that lists the names."""
    if name == "auto":
        return SCHEMES[environment.detect_instruction_set()]
    if name not in SCHEMES:
        raise InputError(f"there is no quantization scheme '{name}'; there are auto, {', '.join(SCHEMES)}")
    return SCHEMES[name]


def scheme_for(target: Target) -> Scheme:
    """Return what a target's runtime wants."""
    return SCHEMES["tensorrt" if target.runtime == "trt" else environment.instruction_set_of(target)]
