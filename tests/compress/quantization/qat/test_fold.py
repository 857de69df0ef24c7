"""Trained weights of a graph with folded BatchNorm, written back into the network that the graph was exported from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphs
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from compress.quantization.qat.fold import module_names, write_back
from export.layers import layers_of
from runtimes.errors import CompressError

EXAMPLE = torch.zeros(1, 3, 8, 8)
Array = np.ndarray
Trained = dict[str, tuple[Tensor, Tensor]]


class Net(nn.Module):
    """A convolution with BatchNorm, a depthwise one with BatchNorm, one with a bias of its own, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.depthwise, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.pointwise = nn.Conv2d(6, 5, 1)
        self.classifier = nn.Linear(5, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm1(self.first(images)).relu()
        x = self.norm2(self.depthwise(x)).relu()
        logits: Tensor = self.classifier(self.pointwise(x).mean((2, 3)))
        return logits


def network(seed: int = 0) -> Net:
    """Return a network whose BatchNorms have statistics and weights of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for norm in (net.norm1, net.norm2):
            norm.running_mean.copy_(torch.randn(6, generator=generator))
            norm.running_var.copy_(torch.rand(6, generator=generator) + 0.5)
    return net.eval()


def folded(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    """Return weight and bias with BatchNorm folded, computed in float64."""
    mean, variance, weight, bias = (
        tensor.detach().double().numpy() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = weight / np.sqrt(variance + norm.eps)
    rows = layer.weight.detach().double().numpy() * factor[:, None, None, None]
    return rows.astype(np.float32), (bias - mean * factor).astype(np.float32)


def exported(net: Net) -> onnx.ModelProto:
    """Return the network's graph with folded BatchNorm; the classifier's weights are transposed."""
    constants = dict(zip(("w1", "b1"), folded(net.first, net.norm1), strict=True))
    constants |= dict(zip(("w2", "b2"), folded(net.depthwise, net.norm2), strict=True))
    constants |= {"w3": net.pointwise.weight.detach().numpy(), "b3": net.pointwise.bias.detach().numpy()}
    constants |= {"w4": net.classifier.weight.detach().numpy().T.copy(), "b4": np.zeros(4, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="depthwise", pads=[1] * 4, group=6),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], name="pointwise"),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], name="classifier"),
    ]
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


def trained(graph: onnx.ModelProto) -> tuple[Trained, onnx.ModelProto]:
    """Return changed weights and biases of all layers, and the graph with them."""
    rng = np.random.default_rng(1)
    result, changed = Trained(), onnx.ModelProto()
    changed.CopyFrom(graph)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    inputs = {node.name: node.input for node in graph.graph.node}
    for name, layer in layers_of(graph).items():
        new = []
        for tensor, value in zip(inputs[name][1:], (layer.weight, layer.bias), strict=True):
            new.append((value + rng.normal(0, 0.1, value.shape)).astype(np.float32))
            stored[tensor].CopyFrom(numpy_helper.from_array(new[-1], tensor))
        result[name] = torch.from_numpy(new[0]), torch.from_numpy(new[1])
    return result, changed


def test_the_network_computes_what_the_trained_graph_computes() -> None:
    net = network()
    graph = exported(net)
    images = np.random.default_rng(2).normal(size=(5, 3, 8, 8)).astype(np.float32)
    before = onnx_graphs.run_model(graph, images)
    np.testing.assert_allclose(net(torch.from_numpy(images)).detach().numpy(), before, rtol=1e-4, atol=1e-4)
    changes, changed = trained(graph)
    write_back(changes, graph, net, EXAMPLE)
    expected = onnx_graphs.run_model(changed, images)
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(net(torch.from_numpy(images)).detach().numpy(), expected, rtol=1e-4, atol=1e-3)


def test_batch_norm_keeps_its_statistics_and_its_weight() -> None:
    net, original = network(), network()
    graph = exported(net)
    write_back(trained(graph)[0], graph, net, EXAMPLE)
    for norm, other in ((net.norm1, original.norm1), (net.norm2, original.norm2)):
        for name in ("running_mean", "running_var", "weight"):
            assert torch.equal(getattr(norm, name), getattr(other, name))
        assert not torch.equal(norm.bias, other.bias)


def test_unchanged_weights_leave_the_network_as_it_is() -> None:
    net, original = network(), network()
    graph = exported(net)
    same = {
        name: (torch.tensor(layer.weight), torch.from_numpy(layer.bias).float())
        for name, layer in layers_of(graph).items()
    }
    write_back(same, graph, net, EXAMPLE)
    state = net.state_dict()
    for name, value in original.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


def test_a_channel_that_batch_norm_multiplies_by_zero_keeps_its_weights_and_learns_its_bias() -> None:
    net = network()
    with torch.no_grad():
        net.norm1.weight[2] = 0
    weights, bias = net.first.weight[2].clone(), float(net.norm1.bias[2].detach())
    graph = exported(net)
    changes, _ = trained(graph)
    moved = float(changes["first"][1][2]) - float(layers_of(graph)["first"].bias[2])
    write_back(changes, graph, net, EXAMPLE)
    assert torch.equal(net.first.weight[2], weights)
    assert float(net.norm1.bias[2].detach()) == pytest.approx(bias + moved, abs=1e-6)
    assert torch.isfinite(net(torch.ones(1, 3, 8, 8))).all()


def other_weights(net: Net) -> None:
    with torch.no_grad():
        net.first.weight[0, 0, 0, 0] += 1.0


def other_shape(net: Net) -> None:
    net.first = nn.Conv2d(3, 6, 1)


def test_layers_have_the_names_of_their_modules() -> None:
    net = network()
    graph = exported(net)
    names = module_names(graph, net, EXAMPLE)
    assert list(names) == list(layers_of(graph))
    assert list(names.values()) == ["first", "depthwise", "pointwise", "classifier"]


def test_modules_that_the_graph_computes_without_a_layer_are_passed_over() -> None:
    net = network()
    graph = exported(net)
    net.pointwise = nn.Sequential(nn.Conv2d(6, 6, 1), net.pointwise)  # type: ignore[assignment]
    assert list(module_names(graph, net, EXAMPLE).values()) == ["first", "depthwise", "pointwise.1", "classifier"]


@pytest.mark.parametrize("change", [other_weights, other_shape])
def test_a_layer_that_comes_from_no_module_has_no_name_and_is_not_written(change: Callable[[Net], None]) -> None:
    net = network()
    graph = exported(net)
    change(net)
    before = net.first.weight.clone()
    assert list(module_names(graph, net, EXAMPLE)) == ["depthwise", "pointwise", "classifier"]
    write_back(trained(graph)[0], graph, net, EXAMPLE)
    assert torch.equal(net.first.weight, before)


def test_a_graph_of_another_network_is_refused() -> None:
    graph = exported(network())
    with pytest.raises(CompressError, match="no layer of the exported graph has the weights of"):
        module_names(graph, network(seed=1), EXAMPLE)
