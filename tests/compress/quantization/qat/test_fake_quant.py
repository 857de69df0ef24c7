"""Training with rounding: the answers of the file that ships, LSQ's gradient, weights that find their way back."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.quantization.qat.fake_quant import FakeQuantNetwork, learned_step, rounded_weight
from compress.quantization.qat.fold import write_back
from compress.quantization.schemes import SCHEMES
from export.layers import layers_of, nearest
from export.plan import make_plan
from export.quantize import insert_qdq
from runtimes.errors import CompressError, InputError

IMAGES = np.random.default_rng(1).normal(0, 1, (8, 3, 8, 8)).astype(np.float32)


def ranges_of(model: onnx.ModelProto, scheme: str) -> dict[str, tuple[float, float]]:
    names = make_plan(model, SCHEMES[scheme]).ranged
    values = {name: IMAGES if name == "x" else onnx_graphs.tensor_values(model, name, IMAGES) for name in names}
    return {name: (float(value.min()), float(value.max())) for name, value in values.items()}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_its_answers_are_those_of_the_file_that_ships(scheme: str) -> None:
    model = onnx_graphs.residual_model(channels=3)
    ranges = ranges_of(model, scheme)
    network = FakeQuantNetwork(model, SCHEMES[scheme], ranges).eval()
    shipped = insert_qdq(model, network.learned_ranges(), SCHEMES[scheme]).model
    with torch.no_grad():
        answers = network(torch.from_numpy(IMAGES)).numpy()
    expected = onnx_graphs.run_model(shipped, IMAGES, exact=True)
    float32 = onnx_graphs.run_model(model, IMAGES)
    assert np.abs(answers - expected).max() < 0.02 * np.abs(expected).max()  # rounding ties and int32 biases
    assert np.square(answers - expected).sum() < 0.1 * np.square(float32 - expected).sum()


def test_without_rounding_it_is_the_float_graph() -> None:
    model = onnx_graphs.residual_model(channels=3)
    network = FakeQuantNetwork(model, SCHEMES["x86-vnni"], ranges_of(model, "x86-vnni")).eval()
    network.rounding = False
    with torch.no_grad():
        answers = network(torch.from_numpy(IMAGES)).numpy()
    assert np.allclose(answers, onnx_graphs.run_model(model, IMAGES), atol=1e-5)


@pytest.mark.parametrize("scheme", ["x86-avx2", "x86-vnni", "generic"])
@pytest.mark.parametrize("name", ["first", "depthwise", "pointwise", "gemm"])
def test_weights_are_rounded_as_the_file_holds_them(scheme: str, name: str) -> None:
    layer = layers_of(onnx_graphs.residual_model(channels=3))[name]
    stored = nearest(layer, SCHEMES[scheme].sums, 1.0)
    shape = [-1 if dimension == layer.axis else 1 for dimension in range(layer.weight.ndim)]
    found = rounded_weight(layer, torch.from_numpy(layer.weight).float(), SCHEMES[scheme]).numpy()
    assert np.allclose(found, stored.integers * stored.scale.reshape(shape), atol=1e-5)


def test_the_gradient_of_the_step_is_that_of_the_paper() -> None:
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


def test_an_unknown_operator_is_told() -> None:
    model = onnx_graphs.residual_model(channels=3)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"
    scheme = SCHEMES["x86-vnni"]
    network = FakeQuantNetwork(model, scheme, dict.fromkeys(make_plan(model, scheme).ranged, (0.0, 1.0)))
    with pytest.raises(InputError, match="the operator Softplus"):
        network(torch.from_numpy(IMAGES))


class Small(nn.Module):
    """Conv, BatchNorm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))


def small() -> tuple[Small, onnx.ModelProto, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Return a network, its exported graph by hand, and other weights for the graph."""
    torch.manual_seed(0)
    network = Small().eval()
    nn.init.uniform_(network.norm.weight, 0.5, 2)
    nn.init.uniform_(network.norm.bias, -1, 1)
    network.norm.running_mean.uniform_(-1, 1)
    network.norm.running_var.uniform_(0.5, 2)
    factor = network.norm.weight / torch.sqrt(network.norm.running_var + network.norm.eps)
    weight = (network.conv.weight * factor[:, None, None, None]).detach().numpy()
    bias = (network.norm.bias - network.norm.running_mean * factor).detach().numpy()
    node = onnx.helper.make_node
    model = onnx_graphs.make_model(
        [node("Conv", ["x", "w", "b"], ["c"], name="conv"), node("Relu", ["c"], ["r"], name="relu"),
         node("GlobalAveragePool", ["r"], ["p"], name="pool"), node("Flatten", ["p"], ["f"], name="flatten"),
         node("Gemm", ["f", "v", "d"], ["y"], name="head", transB=1)],
        {"w": weight, "b": bias, "v": network.head.weight.detach().numpy(), "d": network.head.bias.detach().numpy()},
        channels=3, output_rank=2,
    )  # fmt: skip
    trained = {name: (torch.from_numpy(layer.weight * 1.1).float(), torch.from_numpy(layer.bias + 0.3).float())
               for name, layer in layers_of(model).items()}  # fmt: skip
    return network, model, trained


def test_trained_weights_go_back_through_batchnorm() -> None:
    network, model, trained = small()
    write_back(trained, model, network, torch.zeros(1, 3, 8, 8))
    for tensor in model.graph.initializer:
        layer, part = {"w": ("conv", 0), "b": ("conv", 1), "v": ("head", 0), "d": ("head", 1)}[tensor.name]
        tensor.CopyFrom(numpy_helper.from_array(trained[layer][part].numpy(), tensor.name))
    with torch.no_grad():
        answers = network(torch.from_numpy(IMAGES)).numpy()
    assert np.allclose(answers, onnx_graphs.run_model(model, IMAGES), atol=1e-4)


def test_a_graph_of_another_network_is_refused() -> None:
    network, model, trained = small()
    with torch.no_grad():
        network.conv.weight.add_(torch.randn_like(network.conv.weight))
    with pytest.raises(CompressError, match="are not those of the module"):
        write_back(trained, model, network, torch.zeros(1, 3, 8, 8))
    network.head = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    with pytest.raises(CompressError, match="has 3 layers, its exported graph 2"):
        write_back(trained, model, network, torch.zeros(1, 3, 8, 8))


def test_a_dead_channel_keeps_its_bias() -> None:
    network, model, trained = small()
    with torch.no_grad():
        network.norm.weight[1] = 0
    weight = layers_of(model)["conv"].weight
    weight[1] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), "w"))
    write_back(trained, model, network, torch.zeros(1, 3, 8, 8))
    assert torch.isfinite(network.conv.weight).all()
    assert torch.isfinite(network.norm.bias).all()
