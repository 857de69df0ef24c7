"""What INT8 a target's instruction set wants."""

from __future__ import annotations

from export.quantize import Scheme
from runtimes.target import InstructionSet

# On x86 without VNNI, ONNX Runtime multiplies with `vpmaddubsw`, which adds two products of an unsigned and a signed
# byte in int16: 2 * 255 * 127 saturates, silently. Seven-bit weights can't overflow it. Elsewhere sums are exact.
SCHEMES: dict[InstructionSet, Scheme] = {
    "x86-avx2": Scheme("x86-avx2", saturating_weight_max=64),
    "x86-vnni": Scheme("x86-vnni", saturating_weight_max=127),
    "arm64": Scheme("arm64", saturating_weight_max=127),
}
