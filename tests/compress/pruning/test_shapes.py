"""Tests of the layer shapes of pruned networks, against shapes by hand and the pruned networks themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import Chain, Tangle
from torch import Tensor, nn

from compress.networks.layers import LayerShape, layer_shapes
from compress.pruning.channels import find_groups
from compress.pruning.shapes import Shapes, layer_names, resize_graph
from compress.pruning.surgery import remove_units
from export.to_onnx import INPUT_NAME, to_onnx
from runtimes.errors import InputError

EXAMPLE = torch.zeros(1, 3, 16, 16)
WIDTHS = {"a": 10, "b": 2, "c": 3, "d": 5}


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    network = Chain().eval()
    return Shapes(network, find_groups(network, EXAMPLE))


def test_layer_shapes_follow_from_the_widths_of_groups(shapes: Shapes) -> None:
    assert shapes.groups["b"].units == 3  # 8 groups of 3 channels
    assert shapes.layers(WIDTHS) == {
        "a": LayerShape(10, 3, 1), "b": LayerShape(16, 10, 1), "c": LayerShape(24, 16, 8), "d": LayerShape(5, 24, 1),
        "head": LayerShape(5, 5, 1),
    }  # fmt: skip
    assert shapes.layers({}) == shapes.full
    assert shapes.layers_of == {"a": ["a", "b"], "b": ["b", "c"], "c": ["c", "d"], "d": ["d", "head"]}


def test_layer_shapes_are_those_of_the_pruned_network() -> None:
    """With residual additions, a depthwise and a grouped convolution, a concat and a flatten."""
    network = Tangle().eval()
    groups = find_groups(network, torch.zeros(1, 3, 8, 8))
    shapes = Shapes(network, groups)
    widths = {group.name: max(1, group.units // 2) for group in groups}
    removed = {group.name: np.arange(widths[group.name], group.units) for group in groups}
    assert shapes.layers(widths) == layer_shapes(remove_units(network, groups, removed))


def test_the_resized_graph_has_the_shapes_and_runs(shapes: Shapes, tmp_path: Path) -> None:
    network = Chain().eval()
    graph = onnx.load(to_onnx(network, tmp_path / "chain.onnx", 16, 18, None).path)
    names = layer_names(network, EXAMPLE, graph)
    assert list(names.values()) == ["a", "b", "c", "d", "head"]
    layers = shapes.layers(WIDTHS)
    copy = resize_graph(graph, {name: layers[module] for name, module in names.items()})
    dims = {tensor.name: tuple(tensor.dims) for tensor in copy.graph.initializer}
    weights = [dims[node.input[1]] for node in copy.graph.node if node.name in names]
    assert weights == [(10, 3, 3, 3), (16, 10, 3, 3), (24, 2, 3, 3), (5, 24, 1, 1), (5, 5)]
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {INPUT_NAME: np.zeros((2, 3, 16, 16), np.float32)})
    assert logits.shape == (2, 5)


def test_layers_that_run_twice_can_not_be_matched(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.conv(self.conv(images).relu()).mean((2, 3)))

    network = Shared().eval()
    graph = onnx.load(to_onnx(network, tmp_path / "shared.onnx", 16, 18, None).path)
    with pytest.raises(InputError, match=r"runs 3 layers \(2 different\).*give a budget in macs instead"):
        layer_names(network, EXAMPLE, graph)
