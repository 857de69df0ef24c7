"""All rewrites together: the hard activations of every exporter run in integer kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_graphs import optimized_ops, parsed, ranges_of, run_model, sqnr_db

from compress.quantization.schemes import SCHEMES
from export.quantize import insert_qdq
from export.rewrites.integer_form import integer_form

IMAGES = np.random.default_rng(1).normal(0, 1, (6, 4, 6, 6)).astype(np.float32)
CONSTANTS = "<float zero = {0.0}, float three = {3.0}, float six = {6.0}, float sixth = {0.1666667}, " \
            "float half = {0.5}, float[1] one = {1.0}, float tenth = {0.1}>"  # fmt: skip


def between_convolutions(nodes: str) -> onnx.ModelProto:
    """Return a network with these nodes from `c`, which a Conv writes, to `h`, which another reads."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(0, 0.5, (4, 4, 3, 3)).astype(np.float32), name) for name in "wvu"]
    return parsed(f"c = Conv<pads=[1,1,1,1]>(x, w) {nodes} y = Conv(h, v)", CONSTANTS, weights)


@pytest.mark.parametrize("nodes", [
    "h = HardSwish(c)",
    "g = HardSigmoid<alpha=0.1666667, beta=0.5>(c) h = Mul(c, g)",
    "a = Add(c, three) g = Clip(a, zero, six) m = Mul(c, g) h = Div(m, six)",
    "a = Add(c, three) g = Clip(a, zero, six) d = Div(g, six) h = Mul(c, d)",
    "a = Add(c, three) r = Relu(a) g = Min(r, six) m = Mul(g, sixth) h = Mul(m, c)",
    "m = Mul(c, sixth) a = Add(m, half) g = Clip(a, zero, one) h = Mul(c, g)",
    "g = Sigmoid(c) h = Mul(c, g)",
    "m = Mul(c, tenth) h = Max(c, m)",
    "d = Conv<pads=[1,1,1,1]>(x, u) h = Sum(c, d)",
    "d = Conv<pads=[1,1,1,1]>(x, u) s = Sum(c, d) h = Max(s, zero)",
    "p = GlobalAveragePool(c) d = Conv<pads=[1,1,1,1]>(p, u) a = Add(d, three) g = Clip(a, zero, six) m = Div(g, six) "
    "h = Mul(c, m)",
    "p = GlobalAveragePool(c) d = Conv<pads=[1,1,1,1]>(p, u) g = Sigmoid(d) h = Mul(c, g)",
])  # fmt: skip
def test_nothing_between_two_convolutions_stays_float(nodes: str, tmp_path: Path) -> None:
    model, scheme = between_convolutions(nodes), SCHEMES["x86-vnni"]
    rewritten = integer_form(model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert sqnr_db(run_model(model, IMAGES), run_model(rewritten, IMAGES)) > 100
    quantized = insert_qdq(rewritten, ranges_of(rewritten, IMAGES, scheme), scheme)
    assert sqnr_db(run_model(model, IMAGES), run_model(quantized.model, IMAGES, exact=True)) > 25
    assert quantized.float_ops == {}
    kernels = set(optimized_ops(quantized.model, tmp_path))
    assert not kernels & {"Add", "Mul", "Sum", "Div", "Min", "Max", "Clip", "Relu", "Sigmoid", "LeakyRelu"}
