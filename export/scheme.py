"""What INT8 a runtime's kernels want: a scheme is all that `export.quantize` needs to know of a target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from runtimes.artifact import Artifact

# How a kernel sums the products of activations and weights; `export.layers` keeps weights within what that allows.
#   exact       in 32 bits: nothing can overflow
#   neighbours  in 16 bits, two by two along the reduction (`vpmaddubsw`); depthwise kernels sum in 32 bits
#   unknown     nobody knows: no two products may overflow 16 bits, in any order and any kernel
Sums = Literal["exact", "neighbours", "unknown"]

# ONNX Runtime's switch to kernels that sum in 32 bits on x86 without VNNI; with VNNI it would only make them slow.
EXACT_KERNELS = {"session.x64quantprecision": "1"}

# Where Q/DQ pairs stand.
#   every-operator  around each operator with an integer kernel; Relu and Clip go into the pair behind them
#   layer-inputs    in front of weighted layers, and on the shortcut of a residual Add; nothing between a layer and what
#                   its kernel fuses as an epilogue (Add, Relu, Clip)
Placement = Literal["every-operator", "layer-inputs"]


@dataclass(frozen=True)
class Scheme:
    """How INT8 is made for one kind of runtime and processor. Weights are int8 with a scale per output channel.

    signed: activations are int8 with zero point 0; else uint8 with a zero point. One scale per tensor either way.
    int32_bias: biases are int32 at the product of both scales; else float32.
    operators: those with integer kernels, besides Conv and Gemm.
    """

    name: str
    signed: bool
    placement: Placement
    int32_bias: bool
    sums: Sums
    operators: frozenset[str] = frozenset()


def summed_exactly(artifact: Artifact) -> Artifact:
    """Return the artifact with the session option for exact sums: what it answers where its kernels don't saturate."""
    options = {**artifact.manifest.session_options, **EXACT_KERNELS}
    return replace(artifact, manifest=replace(artifact.manifest, session_options=options))
