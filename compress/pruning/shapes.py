"""What a network's layers look like at other widths, in torch and in its exported graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, nn

from compress.networks.layers import LayerShape, layer_shapes, run_layers
from compress.pruning.groups import Group
from export.layers import layers_of
from runtimes.errors import InputError

Widths = Mapping[str, int]  # by group: how many units stay


class Shapes:
    """The layers of a network and how their channels follow from the widths of its groups."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        """Look at a network whose groups are known."""
        self.groups = {group.name: group for group in groups}
        self.full = layer_shapes(network)
        self._depthwise = {name for name, shape in self.full.items() if 1 < shape.groups == shape.inputs}
        self._slots: dict[str, list[tuple[str, str, int]]] = {name: [] for name in self.full}
        self.readers: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in groups:
            for slot in group.slots:
                if slot.module in self.full:
                    self._slots[slot.module].append((group.name, slot.side, slot.positions.shape[1]))
                    if slot.module not in self.readers[group.name]:
                        self.readers[group.name].append(slot.module)

    def width(self, layer: str, widths: Widths) -> LayerShape:
        """Return a layer's channels where groups keep so many units; groups that are not named keep all."""
        lost = Counter[str]()
        for group, side, each in self._slots[layer]:
            units = self.groups[group].units
            lost[side] += (units - widths.get(group, units)) * each
        full = self.full[layer]
        if layer in self._depthwise:
            outputs = full.outputs - lost["out"]
            return LayerShape(outputs, outputs * full.inputs // full.outputs, outputs * full.groups // full.outputs)
        return LayerShape(full.outputs - lost["out"], full.inputs - lost["in"], full.groups)

    def all(self, widths: Widths) -> dict[str, LayerShape]:
        """Return every layer's channels."""
        return {layer: self.width(layer, widths) for layer in self.full}


def layer_names(network: nn.Module, example: Tensor, graph: onnx.ModelProto) -> dict[str, str]:
    """Return the module of each layer of a network's exported graph, by the order in which they run.

    Raises InputError where the two don't have the same layers, as with modules that run twice.
    """
    modules = {module: name for name, module in network.named_modules()}
    order = [modules[module] for module, _ in run_layers(network, example)[0]]
    layers = layers_of(graph)
    if len(order) != len(layers) or len(set(order)) < len(order):
        raise InputError(
            f"prune: the network runs {len(order)} layers, its exported graph {len(layers)}; cost: macs works"
        )
    return dict(zip(layers, order, strict=True))


def resized(graph: onnx.ModelProto, shapes: Mapping[str, LayerShape]) -> onnx.ModelProto:
    """Return a copy of a float32 graph whose layers have other channels, with random weights: for its speed alone.

    shapes: by the layer's name in the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.value_info[:]
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    rng = np.random.default_rng(0)
    layers = layers_of(graph)
    for node in copy.graph.node:
        if node.op_type == "Reshape" and tensors[node.input[1]].dims == [
            2
        ]:  # to a number of channels that is written out
            node.CopyFrom(helper.make_node("Flatten", [node.input[0]], list(node.output), name=node.name, axis=1))
        if node.name not in shapes:
            continue
        width = shapes[node.name]
        shape = list(layers[node.name].weight.shape)
        out_axis = layers[node.name].axis
        shape[out_axis], shape[1 - out_axis] = width.outputs, width.inputs // width.groups
        for index, dims in ((1, shape), (2, [width.outputs])):
            if len(node.input) > index and node.input[index]:
                values = rng.normal(0, 0.05, dims).astype(np.float32)
                tensors[node.input[index]].CopyFrom(numpy_helper.from_array(values, node.input[index]))
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.CopyFrom(helper.make_attribute("group", width.groups))
    return copy
