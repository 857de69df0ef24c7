"""Cross-layer equalization: scale channels to equal range without changing the network's function.

Nagel et al., Data-Free Quantization, ICCV 2019, section 4.1: each channel's factor is multiplied into the layers that
write a tensor and divided out of the layers that read it. Only exact rewrites are made: through Relu, Add and pooling,
never across Clip, whose upper bound would apply to other values of the scaled channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, numpy_helper

from compress.quantization.correction.channels import Channels
from export.layers import Layer, layers_of

Float64 = npt.NDArray[np.float64]

HOMOGENEOUS_OPS = frozenset({"Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten"})
MIN_REACH = 1 / 32  # of the largest channel; a channel with smaller values may have larger ones in other images
MAX_RESERVE = 1.5  # a single channel that exceeds its usual reach by more is clamped at times, not all others coarser


@dataclass(frozen=True)
class _Group:
    """Tensors whose channels must be scaled together, with the layers that write and read them."""

    tensors: frozenset[str]
    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


@dataclass(frozen=True)
class Equalized:
    """An equalized float32 graph, and the factors (C,) of each tensor with scaled channels."""

    model: onnx.ModelProto
    factors: dict[str, Float64]

    def scale(self, statistics: Mapping[str, Channels]) -> dict[str, Channels]:
        """Return the statistics of the scaled tensors."""
        return {name: _scale(before, self.factors[name]) if name in self.factors else before
                for name, before in statistics.items()}  # fmt: skip


def _scale(channels: Channels, factor: Float64) -> Channels:
    factor = _per_input(factor, len(channels.mean))
    return Channels(*(factor * values for values in astuple(channels)))


def equalize(model: onnx.ModelProto, statistics: Mapping[str, Channels], quantized: Iterable[str]) -> Equalized:
    """Return the graph with all channels of each quantized tensor scaled to equal range in the averaged images.

    quantized: names of the tensors. statistics: of at least these tensors.
    The ranges of weights become less equal instead. A compromise between both (Xiao et al., SmoothQuant, ICML 2023,
    equation 4) was less accurate in measurements, since error feedback reduces the rounding error of weights only.
    """
    names = set(quantized)
    layers = layers_of(model)
    written = {name: np.ones(len(layer.bias)) for name, layer in layers.items()}
    read = {name: np.ones(_channels_read(layer)) for name, layer in layers.items()}
    factors: dict[str, Float64] = {}
    for group in _groups(model, layers):
        reaches = [_usual_reach(statistics[name]) for name in sorted(group.tensors & names)]
        channels = len(group.writers[0].bias)
        if not reaches or not _has_channels(group, channels) or any(len(reach) != channels for reach in reaches):
            continue
        factor = _factor(np.max(reaches, axis=0))
        written |= {layer.name: factor for layer in group.writers}
        read |= {layer.name: _per_input(factor, _channels_read(layer)) for layer in group.readers}
        factors |= dict.fromkeys(group.tensors, factor)
    return Equalized(_scaled(model, layers, written, read), factors)


def _groups(model: onnx.ModelProto, layers: Mapping[str, Layer]) -> list[_Group]:
    """Return the groups of tensors that only layers write and read."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    constants = {tensor.name for tensor in model.graph.initializer}
    ties = [node for node in model.graph.node
            if node.op_type in HOMOGENEOUS_OPS and not set(node.input) & constants and _keeps_batch(node)]  # fmt: skip
    for node in ties:
        for name in node.input:
            if root(name) != root(node.output[0]):
                parent[root(name)] = root(node.output[0])
    tied = {node.name for node in ties}
    members: dict[str, set[str]] = defaultdict(set)
    for node in model.graph.node:
        for name in node.output:
            members[root(name)].add(name)
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    groups = []
    for names in members.values():
        writers = [node for node in model.graph.node if set(node.output) & names and node.name not in tied]
        readers = [node for node in model.graph.node if set(node.input) & names and node.name not in tied]
        tied_reads = {name for node in ties if set(node.output) & names for name in node.input}
        if all(node.name in layers for node in (*writers, *readers)) and writers and readers \
                and not names & outside and tied_reads <= names and not _reads_weights(readers, names):  # fmt: skip
            groups.append(_Group(frozenset(names), *(tuple(layers[node.name] for node in part)
                                                    for part in (writers, readers))))  # fmt: skip
    return groups


def _keeps_batch(node: NodeProto) -> bool:
    """Return whether a node is no Flatten, or one of all axes but the batch."""
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return node.op_type != "Flatten" or axes in ([], [1])


def _has_channels(group: _Group, channels: int) -> bool:
    """Return whether all layers write that many channels and read as many, or after a Flatten several inputs each."""
    return all(len(layer.bias) == channels for layer in group.writers) and all(
        _channels_read(layer) % channels == 0 if layer.op == "Gemm" else _channels_read(layer) == channels
        for layer in group.readers
    )


def _per_input(factor: Float64, inputs: int) -> Float64:
    """Return the factors of the inputs that Flatten makes of the channels, those of a channel after each other."""
    return np.repeat(factor, inputs // len(factor))


def _reads_weights(readers: list[NodeProto], names: set[str]) -> bool:
    return any(set(node.input[1:]) & names for node in readers)


def _usual_reach(channels: Channels) -> Float64:
    """Return the reach of each channel that is scaled to that of the others, (C,).

    It is that of the averaged images. By how much other images exceed it, in any channel, then becomes a reserve of the
    whole tensor's range for images that are not there. Without it, nearly each new image is clamped in some channel.
    """
    return np.maximum(channels.usual, channels.reach / MAX_RESERVE)


def _factor(reach: Float64) -> Float64:
    """Return the factors of the channels (C,), with geometric mean 1."""
    factor = 1 / np.maximum(reach, max(float(reach.max()), 1e-30) * MIN_REACH)
    return np.asarray(factor / np.exp(np.log(factor).mean()))


def _channels_read(layer: Layer) -> int:
    if layer.op == "Gemm":
        return int(layer.weight.shape[1 - layer.axis])
    return int(layer.weight.shape[1] * layer.groups)


def _scaled(
    model: onnx.ModelProto, layers: Mapping[str, Layer], written: Mapping[str, Float64], read: Mapping[str, Float64]
) -> onnx.ModelProto:
    """Return a copy with each layer's weights multiplied by its output's factors and divided by its input's."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.name not in layers:
            continue
        layer, rows, columns = layers[node.name], written[node.name], read[node.name]
        if (rows == 1).all() and (columns == 1).all():
            continue
        arrays = {1: _weight(layer, rows, columns)}
        if len(node.input) > 2 and node.input[2]:
            arrays[2] = layer.bias * rows
        for index, array in arrays.items():
            name = f"{node.name}_equalized_{index}"  # constants may be shared with other nodes
            result.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
            node.input[index] = name
    used = {name for node in result.graph.node for name in node.input}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result


def _weight(layer: Layer, written: Float64, read: Float64) -> Float64:
    if layer.op == "Gemm":
        return layer.weight * (written[:, None] / read if layer.axis == 0 else written / read[:, None])
    per_output = read.reshape(layer.groups, 1, -1).repeat(len(written) // layer.groups, axis=1)
    return layer.weight * (written[:, None] / per_output.reshape(len(written), -1))[:, :, None, None]
