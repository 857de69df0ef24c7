"""Fake quantization: outputs equal those of the INT8 file, and gradients are those of LSQ."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
import torch

from compress.quantization.qat.fake_quant import FakeQuantNetwork, learned_step, require_same_outputs, rounded_weight
from compress.quantization.schemes import SCHEMES
from export.layers import layers_of, nearest
from export.plan import plan_quantization
from export.quantize import insert_qdq
from runtimes.errors import CompressError, InputError

IMAGES = np.random.default_rng(1).normal(0, 1, (8, 3, 8, 8)).astype(np.float32)


def ranges_of(model: onnx.ModelProto, scheme: str) -> dict[str, tuple[float, float]]:
    names = plan_quantization(model, SCHEMES[scheme]).ranged
    values = {name: IMAGES if name == "x" else onnx_graphs.tensor_values(model, name, IMAGES) for name in names}
    return {name: (float(value.min()), float(value.max())) for name, value in values.items()}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_its_outputs_are_those_of_the_int8_file(scheme: str) -> None:
    model = onnx_graphs.residual_model(channels=3)
    ranges = ranges_of(model, scheme)
    network = FakeQuantNetwork(model, SCHEMES[scheme], ranges).eval()
    file = insert_qdq(model, network.learned_ranges(), SCHEMES[scheme]).model
    with torch.no_grad():
        answers = network(torch.from_numpy(IMAGES)).numpy()
    expected = onnx_graphs.run_model(file, IMAGES, exact=True)
    float32 = onnx_graphs.run_model(model, IMAGES)
    assert np.abs(answers - expected).max() < 0.02 * np.abs(expected).max()  # rounding ties and int32 biases
    assert np.square(answers - expected).sum() < 0.1 * np.square(float32 - expected).sum()


def test_without_rounding_its_outputs_are_those_of_the_float_graph() -> None:
    model = onnx_graphs.residual_model(channels=3)
    network = FakeQuantNetwork(model, SCHEMES["x86-vnni"], ranges_of(model, "x86-vnni")).eval()
    network.rounding = False
    with torch.no_grad():
        answers = network(torch.from_numpy(IMAGES)).numpy()
    assert np.allclose(answers, onnx_graphs.run_model(model, IMAGES), atol=1e-5)


@pytest.mark.parametrize("scheme", ["x86-avx2", "x86-vnni", "generic"])
@pytest.mark.parametrize("name", ["first", "depthwise", "pointwise", "gemm"])
def test_weights_are_rounded_as_in_the_file(scheme: str, name: str) -> None:
    layer = layers_of(onnx_graphs.residual_model(channels=3))[name]
    stored = nearest(layer, SCHEMES[scheme].sums, 1.0)
    shape = [-1 if dimension == layer.axis else 1 for dimension in range(layer.weight.ndim)]
    result = rounded_weight(layer, torch.tensor(layer.weight), SCHEMES[scheme]).numpy()
    assert np.allclose(result, stored.integers * stored.scale.reshape(shape), atol=1e-5)


def test_the_gradient_of_the_step_size_is_that_of_the_paper() -> None:
    """LSQ, equation 3: -v/s + round(v/s) inside, the bound outside, scaled by 1 / sqrt(N * highest)."""
    values = torch.tensor([[-1.0, 0.1, 0.26, 0.9, 30.0, 2.04]], dtype=torch.float64)
    step = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    learned_step(values, step, 3, 0, 255).sum().backward()
    scaled = values.numpy()[0] / 0.1
    inside = np.where(scaled < -3, -3, np.where(scaled > 252, 252, np.rint(scaled) - scaled))
    assert step.grad is not None
    assert np.isclose(float(step.grad), inside.sum() / np.sqrt(values.numel() * 255))


def test_gradients_reach_weights_biases_and_steps() -> None:
    model = onnx_graphs.residual_model(channels=3)
    network = FakeQuantNetwork(model, SCHEMES["x86-avx2"], ranges_of(model, "x86-avx2"))
    network(torch.from_numpy(IMAGES)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
    assert sum(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters()) > 8


def test_layers_that_come_from_no_module_are_not_trained() -> None:
    model, scheme = onnx_graphs.residual_model(channels=3), SCHEMES["generic"]
    network = FakeQuantNetwork(model, scheme, ranges_of(model, "generic"), {"first": "stem"})
    assert len([*network.weights.values()]) == 4
    assert [parameter.requires_grad for parameter in network.weights.values()] == [True, False, False, False]


def test_a_graph_that_computes_something_else_is_refused() -> None:
    model, scheme = onnx_graphs.residual_model(channels=3), SCHEMES["generic"]
    network = FakeQuantNetwork(model, scheme, ranges_of(model, "generic"))
    same = FakeQuantNetwork(model, scheme, ranges_of(model, "generic"))
    same.rounding = False
    require_same_outputs(network, same, torch.zeros(1, 3, 8, 8))
    assert network.rounding
    with torch.no_grad():
        next(iter(same.weights.values())).mul_(2)
    with pytest.raises(CompressError, match="outputs differ by"):
        require_same_outputs(network, same, torch.zeros(1, 3, 8, 8))


def test_an_unknown_operator_is_an_error() -> None:
    model = onnx_graphs.residual_model(channels=3)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Unknown"
    scheme = SCHEMES["x86-vnni"]
    network = FakeQuantNetwork(model, scheme, dict.fromkeys(plan_quantization(model, scheme).ranged, (0.0, 1.0)))
    with pytest.raises(InputError, match="the operator Unknown"):
        network(torch.from_numpy(IMAGES))


def test_its_parameters_have_the_names_of_the_exported_networks_modules() -> None:
    model, scheme = onnx_graphs.residual_model(channels=3), SCHEMES["generic"]
    modules = {"first": "stem.conv", "depthwise": "body.0.a", "pointwise": "body.0.b", "gemm": "head"}
    network = FakeQuantNetwork(model, scheme, ranges_of(model, "generic"), modules)
    own = network.recipe_modules()
    assert sorted(own) == ["body", "body.0", "body.0.a", "body.0.b", "head", "stem", "stem.conv"]
    assert {name: len(list(module.parameters())) for name, module in own.items() if "." not in name} == {
        "stem": 2, "body": 4, "head": 2,
    }  # fmt: skip
    parameters = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for module in own.values() for parameter in module.parameters()} < parameters
