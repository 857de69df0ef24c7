"""Layer shapes of a pruned network, in PyTorch and in its exported graph."""

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

Widths = Mapping[str, int]  # by group: number of units to keep; groups that are missing keep all


class Shapes:
    """Shapes of all layers of a network as a function of the widths of its groups.

    full: the network's own layer shapes. groups: by name. layers_of: the layers that each group changes.
    """

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        """Read the shapes of a network and the slots of its groups."""
        self.groups = {group.name: group for group in groups}
        self.full = layer_shapes(network)
        self._depthwise = {name for name, shape in self.full.items() if 1 < shape.groups == shape.inputs}
        self._slots: dict[str, list[tuple[str, str, int]]] = {name: [] for name in self.full}
        self.layers_of: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in groups:
            for slot in group.slots:
                if slot.module in self.full:
                    self._slots[slot.module].append((group.name, slot.side, slot.positions.shape[1]))
                    if slot.module not in self.layers_of[group.name]:
                        self.layers_of[group.name].append(slot.module)

    @property
    def units(self) -> dict[str, int]:
        """Return the number of units of each group."""
        return {name: group.units for name, group in self.groups.items()}

    def layer(self, name: str, widths: Widths) -> LayerShape:
        """Return one layer's shape at the given widths."""
        removed = Counter[str]()
        for group, side, positions_per_unit in self._slots[name]:
            units = self.groups[group].units
            removed[side] += (units - widths.get(group, units)) * positions_per_unit
        full = self.full[name]
        outputs = full.outputs - removed["out"]
        if name in self._depthwise:
            return LayerShape(outputs, outputs * full.inputs // full.outputs, outputs * full.groups // full.outputs)
        return LayerShape(outputs, full.inputs - removed["in"], full.groups)

    def layers(self, widths: Widths) -> dict[str, LayerShape]:
        """Return every layer's shape at the given widths."""
        return {name: self.layer(name, widths) for name in self.full}


def layer_names(network: nn.Module, example: Tensor, graph: onnx.ModelProto) -> dict[str, str]:
    """Return the module name of each layer of the network's exported graph, matched by execution order.

    Raises InputError where the numbers of layers differ or a module runs twice.
    """
    modules = {module: name for name, module in network.named_modules()}
    order = [modules[module] for module, _ in run_layers(network, example)[0]]
    layers = layers_of(graph)
    if len(order) != len(layers) or len(set(order)) < len(order):
        raise InputError(
            f"prune: latency can't be measured by layer: the network runs {len(order)} layers ({len(set(order))} "
            f"different), its exported graph {len(layers)}; give a budget in macs instead"
        )
    return dict(zip(layers, order, strict=True))


def resize_graph(graph: onnx.ModelProto, shapes: Mapping[str, LayerShape]) -> onnx.ModelProto:
    """Return a copy of a float32 graph with other layer shapes and random weights, to measure its latency.

    shapes: by the layer's name in the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.value_info[:]
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    rng = np.random.default_rng(0)
    layers = layers_of(graph)
    for node in copy.graph.node:
        if node.op_type == "Reshape" and node.input[1] in tensors and list(tensors[node.input[1]].dims) == [2]:
            # to a constant number of channels
            node.CopyFrom(helper.make_node("Flatten", [node.input[0]], list(node.output), name=node.name, axis=1))
        if node.name not in shapes:
            continue
        shape = shapes[node.name]
        weight_dims = list(layers[node.name].weight.shape)
        out_axis = layers[node.name].axis
        weight_dims[out_axis], weight_dims[1 - out_axis] = shape.outputs, shape.inputs // shape.groups
        for index, dims in ((1, weight_dims), (2, [shape.outputs])):
            if len(node.input) > index and node.input[index]:
                values = rng.normal(0, 0.05, dims).astype(np.float32)
                tensors[node.input[index]].CopyFrom(numpy_helper.from_array(values, node.input[index]))
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.CopyFrom(helper.make_attribute("group", shape.groups))
    return copy
