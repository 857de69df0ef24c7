"""Plan the quantization of a graph: integer operators, quantized tensors, and their readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from export.layers import LINEAR_OPS, is_layer
from export.scheme import Scheme
from runtimes.errors import InputError

# Operators that move values of their first input without changing them, with integer kernels in the runtimes.
SAME_RANGE_OPS = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice", "Split",
                "Gather", "Expand", "Tile", "DepthToSpace")  # fmt: skip
CLAMPING_OPS = ("Relu", "Clip")  # with the lower bound 0, as QuantizeLinear with zero point 0 has
TABLE_OPS = (
    "Sigmoid",
    "LeakyRelu",
)  # look up each integer in a table: worth it only for integers that are there anyway
# Operators whose values are as coarse as those of their inputs, so that 8 bits are enough for both. Others (Div, Sqrt,
# Exp, means, normalization) may compute values that need relative precision: scales, variances, sums of exponentials.
# Erf and Tanh are parts of Gelu, which ONNX Runtime computes with one float kernel.
ACTIVATION_OPS = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish",
    "HardSwish", "Sigmoid", "HardSigmoid", "Softplus", "Softsign", "Cast", "Dropout",
    "BatchNormalization", "Resize", "Upsample", "Pad", "SpaceToDepth", "Add", "Sub", "Mul", "Max", "Min",
})  # fmt: skip


@dataclass(frozen=True)
class QuantizationPlan:
    """Plan of the quantization of a graph.

    integer_nodes: names of the operators between Q/DQ pairs.
    range_of: quantized tensor to the tensor whose range it has, in graph order.
    clamps: output of each removed Relu or Clip to the tensor that is quantized instead.
    raw_reads: (node, input index) of readers of a quantized tensor that read its float values.
    rescaled: output of each removed product with a scalar to (quantized tensor, scalar): its readers read the tensor's
    integers with the scale times the scalar.
    """

    integer_nodes: frozenset[str]
    range_of: dict[str, str]
    clamps: dict[str, str]
    raw_reads: frozenset[tuple[str, int]] = frozenset()
    rescaled: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def ranged(self) -> list[str]:
        """Names of the tensors whose ranges are needed, in graph order."""
        return list(dict.fromkeys(self.range_of.values()))


def plan_quantization(
    model: onnx.ModelProto, scheme: Scheme, float_nodes: frozenset[str] = frozenset()
) -> QuantizationPlan:
    """Plan the quantization of a float32 graph; operators in `float_nodes` stay float.

    With float nodes, the needed ranges are a subset of those needed without. Raises InputError for a quantized graph or
    one without a layer to quantize.
    """
    _require_float(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if not any(is_layer(node, constants) for node in model.graph.node):
        raise InputError("the model has no Conv or Gemm with constant weights; there is nothing to quantize")
    float_nodes |= _expectations(model, constants)
    if scheme.placement == "layer-inputs":
        return _at_layer_inputs(model, constants, float_nodes)
    return _around_operators(model, constants, scheme.operators, float_nodes)


def _require_float(model: onnx.ModelProto) -> None:
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in model.graph.node):
        raise InputError("the model is already quantized; give the float32 model")


def _expectations(model: onnx.ModelProto, constants: Mapping[str, TensorProto]) -> frozenset[str]:
    """Return the names of layers that average with the probabilities of a Softmax, as YOLO finds the sides of boxes.

    In 8 bits, the small probabilities of far values are lost.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    found = set()
    for node in model.graph.node:
        if is_layer(node, constants):
            source = producer.get(node.input[0])
            while source is not None and moves_values(source):
                source = producer.get(source.input[0])
            if source is not None and source.op_type == "Softmax":
                found.add(node.name)
    return frozenset(found)


def _around_operators(
    model: onnx.ModelProto, constants: dict[str, TensorProto], operators: frozenset[str], float_nodes: frozenset[str]
) -> QuantizationPlan:
    nodes = model.graph.node
    coarse = _coarse(model, constants, operators)
    with_kernel = _worth_integers(model, constants, operators, coarse)
    integer = [node for node in nodes
               if node.name not in float_nodes and (node.name in with_kernel or is_layer(node, constants))]  # fmt: skip
    needed = _needed(model, constants, frozenset(node.name for node in integer))
    written = {name for node in integer for name in node.output if node.op_type != "Gemm" or name in needed}
    chosen = {name for node in integer for name in _activations(node, constants)} | written
    read = {name for node in integer for name in node.input}
    as_floats = {node.input[0] for node in nodes if _needs_floats(node)}
    rescaled = _rescaled(model, (chosen & read & coarse) - as_floats, constants)
    chosen = (chosen - set(rescaled)) | {source for source, _ in rescaled.values()}
    clamps = {name: source for name, source in _clamps(model, written, constants).items() if name not in as_floats}
    chosen |= set(clamps)
    for node in nodes:
        if moves_values(node) and node.input[0] in chosen and node.name not in float_nodes:
            chosen.update(node.output)
    chosen -= {output.name for output in model.graph.output} - read
    return QuantizationPlan(
        integer_nodes=frozenset(node.name for node in integer),
        range_of=_ranges(model, chosen - set(clamps.values())),
        clamps=clamps,
        raw_reads=frozenset((node.name, 0) for node in nodes if _needs_floats(node)),
        rescaled=rescaled,
    )


def _worth_integers(
    model: onnx.ModelProto, constants: Mapping[str, TensorProto], operators: frozenset[str], coarse: set[str]
) -> frozenset[str]:
    """Return the names of the operators without weights to compute in integers.

    These are operators with a kernel that read only tensors in `coarse`, and whose result a layer reads, directly or
    through other such operators. So what an epsilon, a variance or a sum of exponentials goes through stays float, and
    so do sizes and other numbers that are no activations.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    candidates = frozenset(
        node.name for node in model.graph.node
        if node.op_type in operators
        and not _needs_floats(node)
        and _takes_integers(node, constants)
        and coarse.issuperset(_activations(node, constants))
        and (node.op_type not in TABLE_OPS or _reads_integers(node, producer, constants, operators))
    )  # fmt: skip
    linear = frozenset(node.name for node in model.graph.node if node.op_type in LINEAR_OPS)
    needed = _needed(model, constants, candidates | linear)
    return frozenset(node.name for node in model.graph.node
                     if node.name in candidates and needed.intersection(node.output))  # fmt: skip


def _reads_integers(
    node: NodeProto, producer: Mapping[str, NodeProto], constants: Mapping[str, TensorProto], operators: frozenset[str]
) -> bool:
    """Return whether an integer kernel, perhaps with a clamp, computes the input of a node."""
    before = producer.get(node.input[0])
    while before is not None and (moves_values(before) or before.op_type in CLAMPING_OPS):
        before = producer.get(before.input[0])
    return before is not None and (is_layer(before, constants) or before.op_type in operators)


def _coarse(model: onnx.ModelProto, constants: Mapping[str, TensorProto], operators: frozenset[str]) -> set[str]:
    """Return the float tensors computed from the input only by layers, activations and integer operators."""
    coarse = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    for node in model.graph.node:
        data = node.input[:1] if moves_values(node) else _activations(node, constants)
        passes_on = node.op_type in ACTIVATION_OPS or moves_values(node) or node.op_type in operators
        if node.op_type in LINEAR_OPS or (passes_on and data and coarse.issuperset(data)):
            coarse.update(node.output if node.op_type == "Split" else node.output[:1])
    return coarse


def _needed(model: onnx.ModelProto, constants: Mapping[str, TensorProto], readers: frozenset[str]) -> set[str]:
    """Return the tensors that operators named in `readers` read, if these lead to a layer.

    Operators that do not change the integers lie between: they move values, clamp or rescale them.
    """
    needed: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in LINEAR_OPS:
            needed.update(_activations(node, constants)[:1] if node.name in readers else ())
        elif needed.intersection(node.output):
            if node.name in readers:
                needed.update(_activations(node, constants))
            elif moves_values(node) or node.op_type in CLAMPING_OPS:
                needed.add(node.input[0])
            elif node.op_type == "Mul" and any(_is_number_named(name, constants) for name in node.input):
                needed.update(_activations(node, constants))
    return needed


def _is_number_named(name: str, constants: Mapping[str, TensorProto]) -> bool:
    return name in constants and is_number(constants[name])


def _takes_integers(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Return whether all inputs can be integers: tensors, or for Add one scalar."""
    fixed = [name for name in node.input if name in constants]
    return not fixed or (node.op_type == "Add" and len(fixed) == 1 and is_number(constants[fixed[0]]))


def _needs_floats(node: NodeProto) -> bool:
    """Return whether a node is an AveragePool with dilations, which ONNX Runtime rejects between Q/DQ pairs."""
    return node.op_type == "AveragePool" and any(
        size != 1 for attribute in node.attribute if attribute.name == "dilations" for size in attribute.ints
    )


def moves_values(node: NodeProto) -> bool:
    """Return whether a node moves values of its first input without changing them, in an integer kernel."""
    if node.op_type == "MaxPool" and any(node.output[1:]):  # the positions of the largest values are no values
        return False
    nearest = any(attribute.name == "mode" and attribute.s == b"nearest" for attribute in node.attribute)
    return node.op_type in SAME_RANGE_OPS or (node.op_type == "Resize" and nearest)


def is_number(constant: TensorProto) -> bool:
    """Return whether a constant is a nonzero float32 scalar."""
    return number_in(constant) not in (None, 0.0)


def number_in(constant: TensorProto) -> float | None:
    """Return the value of a float32 scalar, None for other constants."""
    if constant.data_type != TensorProto.FLOAT or list(constant.dims):
        return None
    return float(numpy_helper.to_array(constant))


def _rescaled(
    model: onnx.ModelProto, products: set[str], constants: Mapping[str, TensorProto]
) -> dict[str, tuple[str, float]]:
    """Return those of the products that are of a tensor and a positive scalar, and that only integer operators read."""
    rescaled: dict[str, tuple[str, float]] = {}
    outputs = {output.name for output in model.graph.output}
    candidates = products - outputs
    for node in model.graph.node:
        numbers = [name for name in node.input if _is_number_named(name, constants)]
        if node.op_type != "Mul" or len(numbers) != 1 or node.output[0] not in candidates:
            continue
        source = next(name for name in node.input if name != numbers[0])
        factor = float(numpy_helper.to_array(constants[numbers[0]]))
        if source not in outputs and factor > 0:
            origin, so_far = rescaled.get(source, (source, 1.0))
            rescaled[node.output[0]] = (origin, so_far * factor)
    return rescaled


def _at_layer_inputs(
    model: onnx.ModelProto, constants: dict[str, TensorProto], float_nodes: frozenset[str]
) -> QuantizationPlan:
    """Quantize the inputs of layers, and the inputs of each Add that no layer's kernel can add as its epilogue."""
    nodes = model.graph.node
    all_layers = [node for node in nodes if is_layer(node, constants)]
    layers = [node for node in all_layers if node.name not in float_nodes]
    of_layers, of_integers = ({node.output[0] for node in nodes_} for nodes_ in (all_layers, layers))
    read = {(node.name, 0) for node in layers}
    shortcuts = {(add.name, index) for add in nodes if add.op_type == "Add" and set(add.input) & of_integers
                 for index in _shortcuts(add, of_layers, model, constants)}  # fmt: skip
    input_of = {(node.name, index): name for node in nodes for index, name in enumerate(node.input)}
    chosen = {input_of[key] for key in read | shortcuts}
    raw = {key for key, name in input_of.items() if name in chosen} - read - shortcuts
    return QuantizationPlan(frozenset(node.name for node in layers), _ranges(model, chosen), {}, frozenset(raw))


def _shortcuts(
    add: NodeProto, layer_outputs: set[str], model: onnx.ModelProto, constants: Mapping[str, TensorProto]
) -> list[int]:
    """Return the input indices of an Add except the last layer's output, to which that layer's kernel adds the rest.

    An Add with a constant has none. Float layers count, too, so that they do not change the ranges of others.
    """
    if set(add.input) & set(constants):
        return []
    order = {name: position for position, node in enumerate(model.graph.node) for name in node.output}
    fused = max((index for index, name in enumerate(add.input) if name in layer_outputs),
                key=lambda index: order[add.input[index]])  # fmt: skip
    return [index for index in range(len(add.input)) if index != fused]


def _activations(node: NodeProto, constants: Mapping[str, TensorProto]) -> list[str]:
    return [name for name in node.input if name and name not in constants]


def _clamps(model: onnx.ModelProto, integer_outputs: set[str], constants: Mapping[str, TensorProto]) -> dict[str, str]:
    """Return the Relu and Clip nodes with lower bound 0 that alone read the output of an integer operator."""
    uses = Counter([name for node in model.graph.node for name in node.input])
    outputs = {output.name for output in model.graph.output}
    uses.update(outputs)
    clamps = {}
    for node in model.graph.node:
        if node.op_type not in CLAMPING_OPS or node.output[0] in outputs:
            continue
        lower = 0.0
        if node.op_type == "Clip":
            bound = constants.get(node.input[1]) if len(node.input) > 1 else None
            lower = float("nan") if bound is None else float(numpy_helper.to_array(bound))
        if lower == 0 and node.input[0] in integer_outputs and uses[node.input[0]] == 1:
            clamps[node.output[0]] = node.input[0]
    return clamps


def _ranges(model: onnx.ModelProto, chosen: set[str]) -> dict[str, str]:
    """Return the quantized tensors in graph order, each with the tensor that computes its values."""
    producer = {name: node for node in model.graph.node for name in node.output}
    in_order = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    return {name: _origin(name, producer) for name in in_order if name in chosen}


def _origin(name: str, producer: Mapping[str, NodeProto]) -> str:
    while name in producer and moves_values(producer[name]):
        name = producer[name].input[0]
    return name
