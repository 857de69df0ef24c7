"""A copy of a graph whose nodes and constants rewrites replace."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from export.standard_form import shapes_of

Float32 = npt.NDArray[np.float32]


class EditedGraph:
    """A copy of a float32 graph: its nodes in topological order, its constants by name, and shapes of its tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Copy a model."""
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes: list[NodeProto] = [_copy(node) for node in model.graph.node]
        self.outputs = {value.name for value in model.graph.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes = shapes_of(model)

    def readers(self) -> dict[str, list[NodeProto]]:
        """Return the nodes that read each tensor, once for each time."""
        readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                readers[name].append(node)
        return readers

    def producers(self) -> dict[str, NodeProto]:
        """Return the node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.output}

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is a constant of any type."""
        return name in self.constants

    def constant(self, name: str) -> Float32 | None:
        """Return the values of a float32 constant; None if there is none of that name."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def integers(self, name: str) -> list[int] | None:
        """Return the values of an int64 constant; None if there is none of that name."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.INT64:
            return None
        return [int(value) for value in numpy_helper.to_array(tensor).ravel()]

    def operand(self, node: NodeProto) -> tuple[str, Float32] | None:
        """Return the tensor and the constant that a node of two inputs reads; None unless it reads one of each."""
        values = [self.constant(name) for name in node.input]
        if len(values) != 2 or (values[0] is None) == (values[1] is None):
            return None
        index = 0 if values[0] is None else 1
        value = values[1 - index]
        return None if value is None or self.is_constant(node.input[index]) else (node.input[index], value)

    def shape(self, name: str) -> list[int | None] | None:
        """Return the sizes of a tensor, None for those that are not fixed; None if its rank is unknown."""
        return list(self.constants[name].dims) if name in self.constants else self._shapes.get(name)

    def set_shape(self, name: str, shape: list[int | None] | None) -> None:
        """Set what `shape` returns of a new tensor."""
        if shape is not None:
            self._shapes[name] = shape

    def add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        """Add a constant under an unused name, unless there is an equal one; return its name."""
        tensor = numpy_helper.from_array(value, name)
        while tensor.name in self.constants and self.constants[tensor.name] != tensor:
            tensor.name += "_"
        self.constants.setdefault(tensor.name, tensor)
        return str(tensor.name)

    def add_number(self, value: float) -> str:
        """Add a float32 scalar; return its name."""
        return self.add(f"constant_{value:.9g}", np.asarray(value, np.float32))

    def drop_unread(self) -> None:
        """Remove nodes whose outputs nothing reads."""
        read = self.readers().keys() | self.outputs
        self.nodes = [node for node in self.nodes if not read.isdisjoint(node.output)]

    def finished(self) -> onnx.ModelProto:
        """Return the model with the edited nodes and the constants that they read."""
        used = {name for node in self.nodes for name in node.input} | self.outputs
        graph = self.model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)
        return self.model


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
