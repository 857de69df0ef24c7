"""What a network's layers look like at other widths, in torch and in its exported graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, nn

from compress.networks.layers import run_layers
from compress.pruning.groups import Group
from export.layers import layers_of
from runtimes.errors import InputError

Widths = Mapping[str, int]  # by group: how many units stay


@dataclass(frozen=True)
class Width:
    """A layer's channels. groups: of a convolution; as many as there are inputs where it is depthwise."""

    outputs: int
    inputs: int
    groups: int

    @property
    def weights(self) -> int:
        """Return the number of weights, kernel size apart."""
        return self.outputs * (self.inputs // self.groups)


class Shapes:
    """The layers of a network and how their channels follow from the widths of its groups."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        """Look at a network whose groups are known."""
        self.groups = {group.name: group for group in groups}
        self.full: dict[str, Width] = {}
        self._depthwise: set[str] = set()
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                self.full[name] = Width(module.out_channels, module.in_channels, module.groups)
                if 1 < module.groups == module.in_channels:
                    self._depthwise.add(name)
            elif isinstance(module, nn.Linear):
                self.full[name] = Width(module.out_features, module.in_features, 1)
        self._slots: dict[str, list[tuple[str, str, int]]] = {name: [] for name in self.full}
        self.readers: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in groups:
            for slot in group.slots:
                if slot.module in self.full:
                    self._slots[slot.module].append((group.name, slot.side, slot.positions.shape[1]))
                    if slot.module not in self.readers[group.name]:
                        self.readers[group.name].append(slot.module)

    def width(self, layer: str, widths: Widths) -> Width:
        """Return a layer's channels where groups keep so many units; groups that are not named keep all."""
        lost = Counter[str]()
        for group, side, each in self._slots[layer]:
            units = self.groups[group].units
            lost[side] += (units - widths.get(group, units)) * each
        full = self.full[layer]
        if layer in self._depthwise:
            outputs = full.outputs - lost["out"]
            return Width(outputs, outputs * full.inputs // full.outputs, outputs * full.groups // full.outputs)
        return Width(full.outputs - lost["out"], full.inputs - lost["in"], full.groups)

    def all(self, widths: Widths) -> dict[str, Width]:
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


def resized(graph: onnx.ModelProto, shapes: Mapping[str, Width]) -> onnx.ModelProto:
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


def macs(network: nn.Module, example: Tensor) -> dict[str, int]:
    """Return how many positions each layer's weights are used at for one image: MACs are that times its weights."""
    found: dict[str, int] = {}
    names = {module: name for name, module in network.named_modules()}
    for module, output in run_layers(network, example)[0]:
        kernel = module.weight[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        found[names[module]] = found.get(names[module], 0) + kernel * int(np.prod(output.shape[2:], dtype=int))
    return found
