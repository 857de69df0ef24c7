"""Quantization schemes: the requirements that a runtime's kernels place on an INT8 graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from runtimes.artifact import Artifact

# Accumulation of the products of activations and weights; `export.layers` limits weights accordingly.
#   exact       in 32 bits: no overflow
#   neighbours  pairs along the reduction in 16 bits (`vpmaddubsw`); depthwise kernels accumulate in 32 bits
#   unknown     any pair of products may be added in 16 bits, in any kernel
Sums = Literal["exact", "neighbours", "unknown"]

# ONNX Runtime's option for kernels with 32-bit sums on x86 without VNNI; with VNNI it only makes them slower.
EXACT_KERNELS = {"session.x64quantprecision": "1"}

# Placement of Q/DQ pairs.
#   every-operator  around each operator with an integer kernel; the pair after a Relu or Clip replaces it
#   layer-inputs    before weighted layers and on the shortcut of a residual Add; none between a layer and the operators
#                   that its kernel fuses as an epilogue (Add, Relu, Clip)
Placement = Literal["every-operator", "layer-inputs"]


@dataclass(frozen=True)
class Scheme:
    """Form of INT8 for one kind of runtime and processor. Weights are int8 with a scale per output channel.

    signed: activations are int8 with zero point 0, otherwise uint8 with a zero point; always one scale per tensor.
    int32_bias: biases are int32 with the product of both scales, otherwise float32.
    operators: operators with integer kernels, besides Conv and Gemm.
    """

    name: str
    signed: bool
    placement: Placement
    int32_bias: bool
    sums: Sums
    operators: frozenset[str] = frozenset()


def summed_exactly(artifact: Artifact) -> Artifact:
    """Return the artifact with the session option for 32-bit sums, as on processors whose kernels do not saturate."""
    options = {**artifact.manifest.session_options, **EXACT_KERNELS}
    return replace(artifact, manifest=replace(artifact.manifest, session_options=options))
