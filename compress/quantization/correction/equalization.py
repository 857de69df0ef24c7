"""Cross-layer equalization: channels that share one activation scale are brought to one size, without changing answers.

Nagel et al., Data-Free Quantization, ICCV 2019, section 4.1: a factor per channel is multiplied into the layers that
write a tensor and divided out of the layers that read it. It is done only where it is exact for every image: through
Relu, Add and pools, never across a Clip, whose bound a channel of another image would meet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, numpy_helper

from compress.quantization.correction.channels import Channels
from export.layers import Layer, layers_of

Float64 = npt.NDArray[np.float64]

HOMOGENEOUS_OPS = frozenset({"Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten"})
SMALLEST_REACH = 1 / 32  # of the largest channel's: a channel that is almost dead here may not be so in other images


@dataclass(frozen=True)
class _Group:
    """Tensors whose channels can only be scaled together, with the layers that write and that read them."""

    tensors: frozenset[str]
    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


@dataclass(frozen=True)
class Equalized:
    """A float32 graph with the answers that it had, and the factor (C,) of each tensor whose channels were scaled."""

    model: onnx.ModelProto
    factors: dict[str, Float64]

    def scale(self, statistics: Mapping[str, Channels]) -> dict[str, Channels]:
        """Return the statistics that the tensors have now."""
        return {
            name: known if name not in self.factors else Channels(
                known.low * self.factors[name], known.high * self.factors[name], known.mean * self.factors[name]
            )
            for name, known in statistics.items()
        }  # fmt: skip


def equalize(model: onnx.ModelProto, statistics: Mapping[str, Channels], quantized: Iterable[str]) -> Equalized:
    """Make all channels of each quantized tensor equally large.

    statistics: of the tensors named in `quantized`. The weights that read a tensor become less equal instead; sharing
    the burden (Xiao et al., SmoothQuant, ICML 2023, equation 4) was measured and is worse, as rounding with error
    feedback costs less than rounding activations.
    """
    watched = set(quantized)
    layers = layers_of(model)
    written = {name: np.ones(len(layer.bias)) for name, layer in layers.items()}
    read = {name: np.ones(_channels_read(layer)) for name, layer in layers.items()}
    factors: dict[str, Float64] = {}
    for group in _groups(model, layers):
        seen = [statistics[name].reach for name in sorted(group.tensors & watched)]
        if not seen or any(len(reach) != len(group.writers[0].bias) for reach in seen):
            continue
        factor = _factor(np.max(seen, axis=0))
        written |= {layer.name: factor for layer in group.writers}
        read |= {layer.name: factor for layer in group.readers}
        factors |= dict.fromkeys(group.tensors, factor)
    return Equalized(_scaled(model, layers, written, read), factors)


def _groups(model: onnx.ModelProto, layers: Mapping[str, Layer]) -> list[_Group]:
    """Find the groups that layers alone write and read."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    constants = {tensor.name for tensor in model.graph.initializer}
    ties = [node for node in model.graph.node if node.op_type in HOMOGENEOUS_OPS and not set(node.input) & constants]
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
    found = []
    for names in members.values():
        writers = [node for node in model.graph.node if set(node.output) & names and node.name not in tied]
        readers = [node for node in model.graph.node if set(node.input) & names and node.name not in tied]
        tied_reads = {name for node in ties if set(node.output) & names for name in node.input}
        if all(node.name in layers for node in (*writers, *readers)) and writers and readers \
                and not names & outside and tied_reads <= names and not _reads_weights(readers, names):  # fmt: skip
            found.append(_Group(frozenset(names), *(tuple(layers[node.name] for node in part)
                                                    for part in (writers, readers))))  # fmt: skip
    return found


def _reads_weights(readers: list[NodeProto], names: set[str]) -> bool:
    return any(set(node.input[1:]) & names for node in readers)


def _factor(reach: Float64) -> Float64:
    """Return what channels are multiplied with, (C,), its geometric mean 1."""
    factor = 1 / np.maximum(reach, max(float(reach.max()), 1e-30) * SMALLEST_REACH)
    return np.asarray(factor / np.exp(np.log(factor).mean()))


def _channels_read(layer: Layer) -> int:
    if layer.op == "Gemm":
        return int(layer.weight.shape[1 - layer.axis])
    return int(layer.weight.shape[1] * layer.groups)


def _scaled(
    model: onnx.ModelProto, layers: Mapping[str, Layer], written: Mapping[str, Float64], read: Mapping[str, Float64]
) -> onnx.ModelProto:
    """Return a copy with every layer's weights times its output's factor over its input's."""
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
