"""Tests of export.standard_form: unchanged outputs, or an error with advice."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import parsed, ranges_of, run_model, sqnr_db, unsigned_scheme

from export.layers import layers_of
from export.quantize import insert_qdq
from export.standard_form import open_sizes, sort_nodes, standard_form
from runtimes.errors import InputError

SIDE = 12
IMAGES = np.random.default_rng(1).normal(0, 1, (4, 3, SIDE, SIDE)).astype(np.float32)
Value = np.ndarray


class Draft:
    """A graph as other tools write it: operators one after the other, constants as nodes or as initializers."""

    def __init__(self, opset: int = 13, constants_as_nodes: bool = False) -> None:
        self.opset, self.constants_as_nodes = opset, constants_as_nodes
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)
        self.last, self.channels, self.count = "x", 3, 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def constant(self, value: Value) -> str:
        name = self.name("c")
        tensor = numpy_helper.from_array(value, name)
        if self.constants_as_nodes:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def random(self, *shape: int, low: float | None = None) -> str:
        value = self.rng.normal(0, 0.5, shape) if low is None else self.rng.uniform(low, low + 1, shape)
        return self.constant(value.astype(np.float32))

    def add(self, kind: str, *inputs: str, **attributes: object) -> Draft:
        output = self.name("t")
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [output], **attributes))
        self.last = output
        return self

    def conv(self, outputs: int = 6, kernel: int = 3, bias: bool = True, **attributes: object) -> Draft:
        if not {"pads", "auto_pad"} & set(attributes):
            attributes["pads"] = [kernel // 2] * 4
        group = attributes.get("group", 1)
        assert isinstance(group, int)
        inputs = [self.random(outputs, self.channels // group, kernel, kernel)] + [self.random(outputs)] * bias
        self.channels = outputs
        return self.add("Conv", *inputs, **attributes)

    def norm(self) -> Draft:
        c = self.channels
        inputs = [self.random(c, low=0.5), self.random(c), self.random(c), self.random(c, low=0.5)]
        return self.add("BatchNormalization", *inputs)

    def mean(self, axes: list[int], keepdims: int = 1) -> Draft:
        if self.opset < 18:
            return self.add("ReduceMean", axes=axes, keepdims=keepdims)
        return self.add("ReduceMean", self.constant(np.asarray(axes, np.int64)), keepdims=keepdims)

    def head(self, gemm: bool = False) -> Draft:
        weights = self.random(self.channels, 5)
        if gemm:
            return self.add("Gemm", weights, self.random(5))
        return self.add("MatMul", weights).add("Add", self.random(5))

    def finish(self) -> Draft:
        return self.add("GlobalAveragePool").add("Flatten").head()

    def model(self, size: int | str = SIDE, constants_as_inputs: bool = False) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])]
        if constants_as_inputs:
            inputs += [
                helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in self.initializers
            ]
        outputs = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["N", 5])]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=7)


def answers(model: onnx.ModelProto, images: np.ndarray = IMAGES) -> np.ndarray:
    return run_model(model, images, exact=True)


def standard(model: onnx.ModelProto, images: np.ndarray = IMAGES) -> onnx.ModelProto:
    """Return the standard form, after checking all that it promises."""
    given_bytes = model.SerializeToString()
    made = standard_form(model)
    assert model.SerializeToString() == given_bytes
    expected = answers(model, images)
    np.testing.assert_allclose(answers(made, images), expected, atol=1e-4 * np.abs(expected).max())
    names = [node.name for node in made.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert len(made.graph.input) == 1
    assert not {"Constant", "Identity", "Dropout"} & {node.op_type for node in made.graph.node}
    assert [entry.domain for entry in made.opset_import] == [""]
    assert made.opset_import[0].version >= 13
    assert [value.name for value in (*made.graph.input, *made.graph.output)] == \
        [model.graph.input[0].name, model.graph.output[0].name]  # fmt: skip
    return made


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def behind_convolutions(model: onnx.ModelProto) -> set[str]:
    outputs = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    return {node.op_type for node in model.graph.node if outputs & set(node.input)}


STEPS: dict[str, Callable[[Draft], Draft]] = {
    "conv": lambda draft: draft.conv(),
    "conv-norm": lambda draft: draft.conv(bias=False).norm().add("Relu"),
    "norm": lambda draft: draft.norm(),
    "same": lambda draft: draft.conv(auto_pad="SAME_UPPER", strides=[2, 2]),
    "lower": lambda draft: draft.conv(auto_pad="SAME_LOWER", kernel=2, strides=[1, 1]),
    "dilated": lambda draft: draft.conv(pads=[2, 2, 2, 2], dilations=[2, 2]),
    "depthwise": lambda draft: draft.conv(draft.channels, group=draft.channels).norm(),
    "pool": lambda draft: draft.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "average": lambda draft: draft.add("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    "identity": lambda draft: draft.add("Identity"),
    "dropout": lambda draft: draft.add("Dropout"),
    "scale": lambda draft: draft.conv().add("Mul", draft.random(draft.channels, 1, 1)),
    "shift": lambda draft: draft.conv(bias=False).add("Add", draft.random(draft.channels, 1, 1)),
    "relu6": lambda draft: draft.add("Clip", draft.constant(np.float32(0)), draft.constant(np.float32(6))),
    "there-and-back": lambda draft: draft.add("Transpose", perm=[0, 2, 3, 1]).add("Transpose", perm=[0, 3, 1, 2]),
    "sigmoid": lambda draft: draft.add("Sigmoid"),
}
HEADS: dict[str, Callable[[Draft], Draft]] = {
    "pool-matmul": lambda draft: draft.finish(),
    "mean-gemm": lambda draft: draft.mean([2, 3], keepdims=0).head(gemm=True),
    "mean-flatten": lambda draft: draft.mean([-1, -2]).add("Flatten").head(),
}


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), st.sampled_from(sorted(HEADS)),
    st.sampled_from([11, 12, 13, 17, 18, 20]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_graph_answers_the_same_and_can_be_quantized(
    steps: list[str], head: str, opset: int, constants_as_nodes: bool, constants_as_inputs: bool
) -> None:
    draft = Draft(opset, constants_as_nodes)
    for step in steps:
        STEPS[step](draft)
    HEADS[head](draft)
    made = standard(draft.model(constants_as_inputs=constants_as_inputs))
    assert kinds(made).get("GlobalAveragePool", 0) == 1
    assert kinds(made)["Gemm"] == 1
    assert "MatMul" not in kinds(made)
    assert not behind_convolutions(made) & {"BatchNormalization"}
    assert made.opset_import[0].version == max(opset, 13)
    scheme = unsigned_scheme("unknown")
    quantized = insert_qdq(made, ranges_of(made, IMAGES, scheme), scheme).model
    as_written = answers(quantized)
    assert sqnr_db(answers(made), as_written) > 10
    assert sqnr_db(as_written, run_model(quantized, IMAGES)) > 25  # in the kernels of any processor


def test_batch_norm_behind_a_convolution_is_folded_however_constants_are_written() -> None:
    for opset in (9, 11, 13, 20):
        for as_nodes, as_inputs in ((False, False), (True, False), (False, True)):
            draft = Draft(opset, as_nodes).conv(bias=False).norm().add("Relu").finish()
            made = standard(draft.model(constants_as_inputs=as_inputs))
            assert kinds(made) == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}


def test_a_file_of_tf2onnx_becomes_convolutions_with_explicit_pads_and_a_gemm() -> None:
    draft = Draft(13).add("Transpose", perm=[0, 2, 3, 1]).add("Transpose", perm=[0, 3, 1, 2])
    draft.conv(8, auto_pad="SAME_UPPER", strides=[2, 2], bias=False).norm()
    draft.add("Clip", draft.constant(np.float32(0)), draft.constant(np.float32(6)))
    draft.mean([2, 3], keepdims=0).add("MatMul", draft.random(8, 5)).add("Identity")
    made = standard(draft.model())
    assert kinds(made) == {"Conv": 1, "Clip": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert next(iter(layers_of(made).values())).pads == (0, 0, 1, 1)  # one more at the end, for an even size


def test_symmetric_strided_same_pads_of_odd_sizes() -> None:
    for size in (7, 8, 9):
        images = np.random.default_rng(0).normal(0, 1, (2, 3, size, size)).astype(np.float32)
        for kind in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            for kernel, stride in ((3, 2), (2, 2), (1, 2), (5, 3)):
                draft = Draft().conv(auto_pad=kind, kernel=kernel, strides=[stride, stride]).finish()
                made = standard(draft.model(size), images)
                assert not any(attribute.name == "auto_pad" for node in made.graph.node for attribute in node.attribute)


def test_pads_that_need_a_size_that_is_not_fixed_are_refused_and_others_are_not() -> None:
    standard(Draft().conv(auto_pad="SAME_UPPER").finish().model("side"))
    with pytest.raises(InputError, match="export the model with a fixed height and width"):
        standard_form(Draft().conv(auto_pad="SAME_UPPER", strides=[2, 2]).finish().model("side"))


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(("axes", "keepdims"), [([2, 3], 1), ([3, 2], 1), ([-1, -2], 1), ([2, -1], 0)])
def test_means_over_height_and_width_are_global_pools(axes: list[int], keepdims: int, opset: int) -> None:
    draft = Draft(opset).conv().mean(axes, keepdims)
    made = standard((draft.add("Flatten") if keepdims else draft).head().model())
    assert (kinds(made)["GlobalAveragePool"], kinds(made).get("ReduceMean")) == (1, None)


def test_other_means_stay_what_they_are() -> None:
    draft = Draft(18).conv().mean([1]).add("Flatten")
    draft.channels = SIDE * SIDE
    assert kinds(standard(draft.head().model()))["ReduceMean"] == 1
    draft = Draft(18).conv().add("Reshape", Draft.constant(draft, np.asarray([0, 6, -1], np.int64)))
    draft.initializers.append(numpy_helper.from_array(np.asarray([0, 6, -1], np.int64), draft.nodes[-1].input[1]))
    assert kinds(standard(draft.mean([-1], keepdims=0).head().model()))["ReduceMean"] == 1


def test_factors_of_gemms_go_into_their_constants_even_when_those_are_shared() -> None:
    draft = Draft().conv(5).add("GlobalAveragePool").add("Flatten")
    weight, bias = draft.random(5, 5), draft.random(5)
    draft.add("Gemm", weight, bias, alpha=0.5, beta=2.0).add("Relu").add("Gemm", weight, bias, transB=1)
    made = standard(draft.model())
    assert len(layers_of(made)) == 3  # refuses alpha and beta


def test_what_names_the_machine_goes_and_doubled_names_are_told_apart() -> None:
    model = Draft().conv().add("Relu").finish().model()
    expected = answers(model)
    for node in model.graph.node:
        node.name, node.doc_string = "same", "/home/someone/model.py"
    model.metadata_props.add(key="path", value="/home/someone")
    model.graph.doc_string = model.doc_string = "/home/someone"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    made = standard_form(model)  # ONNX Runtime refuses the original for its names
    np.testing.assert_allclose(answers(made), expected, rtol=1e-4, atol=1e-5)
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)
    assert b"someone" not in made.SerializeToString()


def test_the_standard_form_of_the_standard_form_is_itself() -> None:
    once = standard_form(Draft(11).conv(bias=False).norm().finish().model())
    assert standard_form(once).SerializeToString() == once.SerializeToString()


def test_local_functions_are_written_out() -> None:
    model = Draft(18).conv().finish().model()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("of.mine", "Act", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("of.mine", 1))
    model.ir_version = 8
    flatten = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Flatten")
    model.graph.node.insert(flatten, helper.make_node("Act", [model.graph.node[flatten].input[0]], ["acted"],
                                                      domain="of.mine"))  # fmt: skip
    model.graph.node[flatten + 1].input[0] = "acted"
    assert kinds(standard(model))["Relu"] == 1


@pytest.mark.parametrize("dimensions", [["N", 5, 1, 1], [], None, ["N", 5]])
def test_missing_and_wrong_ranks_of_outputs_are_declared(dimensions: list[str | int] | None) -> None:
    model = Draft().conv().finish().model()
    (output,) = model.graph.output
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, dimensions))
    (declared,) = standard_form(model).graph.output
    assert [size.dim_value for size in declared.type.tensor_type.shape.dim] == [0, 5]


def test_several_outputs_stay() -> None:
    model = Draft().conv().finish().model()
    names = [model.graph.output[0].name, model.graph.node[0].output[0]]
    model.graph.output.append(helper.make_tensor_value_info(names[1], TensorProto.FLOAT, None))
    assert [value.name for value in standard_form(model).graph.output] == names


def test_sizes_of_minus_one_are_open() -> None:
    model = Draft().conv().finish().model()
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[0].dim_value, sizes[2].dim_value = -1, 0
    open_sizes(model.graph)
    assert [size.WhichOneof("value") for size in sizes] == [None, "dim_value", None, "dim_value"]


def test_inputs_without_a_shape_have_four_open_sizes() -> None:
    model = Draft().conv().finish().model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    open_sizes(model.graph)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.WhichOneof("value") for size in sizes] == [None] * 4


def test_nodes_are_sorted_only_where_they_are_not() -> None:
    model = Draft().conv().conv().finish().model()
    before = model.SerializeToString()
    sort_nodes(model.graph)
    assert model.SerializeToString() == before
    names = [node.output[0] for node in model.graph.node]
    shuffled = [model.graph.node.pop() for _ in names]
    model.graph.node.extend(shuffled)
    sort_nodes(model.graph)
    assert [node.output[0] for node in model.graph.node] == names


def test_a_cycle_is_left_to_the_checker() -> None:
    model = Draft().conv().conv().finish().model()
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    before = model.SerializeToString()
    sort_nodes(model.graph)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("opset", [1, 6])
def test_an_opset_that_cannot_be_converted_is_refused(opset: int) -> None:
    model = Draft().conv().finish().model()
    model.opset_import[0].version = opset
    with pytest.raises(InputError, match=rf"opset {opset} to 13 \(.*\); export it with opset 13 or newer"):
        standard_form(model)


def test_quantized_models_are_refused() -> None:
    made, scheme = standard_form(Draft().conv().finish().model()), unsigned_scheme()
    quantized = insert_qdq(made, ranges_of(made, IMAGES, scheme), scheme).model
    with pytest.raises(InputError, match="already quantized; give the float32 model"):
        standard_form(quantized)


def test_operators_of_a_runtime_of_its_own_are_refused() -> None:
    draft = Draft().conv()
    with pytest.raises(InputError, match=r"operators of com\.microsoft; export it without runtime-specific"):
        standard_form(draft.add("Gelu", domain="com.microsoft").finish().model())


def test_a_graph_in_training_mode_is_refused() -> None:
    draft = Draft(15).conv()
    draft.add("BatchNormalization", *(draft.random(6, low=0.5) for _ in range(4)), training_mode=1)
    draft.nodes[-1].output.extend(["running_mean", "running_variance"])
    with pytest.raises(InputError, match=r"exported in training mode .* after model\.eval\(\)"):
        standard_form(draft.finish().model())


def test_control_flow_is_refused() -> None:
    draft = Draft().conv()
    draft.nodes.append(helper.make_node("ReduceMax", [draft.last], ["most"], keepdims=0))
    draft.nodes.append(helper.make_node("Cast", ["most"], ["any"], to=TensorProto.BOOL))
    branch = [helper.make_graph([helper.make_node(kind, [draft.last], [kind])], kind, [],
                                [helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)])
              for kind in ("Relu", "Sigmoid")]  # fmt: skip
    draft.nodes.append(helper.make_node("If", ["any"], ["chosen"], then_branch=branch[0], else_branch=branch[1]))
    draft.last = "chosen"
    with pytest.raises(
        InputError,
        match=r"control flow \(If\) that depends on the images .*; export it without, in torch by tracing it",
    ):
        standard_form(draft.finish().model())


def test_a_broken_graph_is_one_line() -> None:
    model = Draft().conv().finish().model()
    model.graph.node[0].input[1] = "nowhere"
    with pytest.raises(InputError, match=f"ONNX Runtime {ort.__version__} cannot load the model: ") as caught:
        standard_form(model)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def network() -> object:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 5),
    )  # fmt: skip
    with torch.no_grad():
        layers.train()(torch.randn(16, 3, SIDE, SIDE) * 2 + 1)
    return layers.eval()


def exported(network: object, **options: object) -> onnx.ModelProto:
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(2, 3, SIDE, SIDE),), content, **options)
    return onnx.load_from_string(content.getvalue())


@pytest.mark.parametrize("constants_as_inputs", [False, True])
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_files_of_torchs_older_exporter(network: object, opset: int, constants_as_inputs: bool) -> None:
    model = exported(network, dynamo=False, opset_version=opset, do_constant_folding=False, input_names=["images"],
                     dynamic_axes={"images": {0: "N"}}, keep_initializers_as_inputs=constants_as_inputs)  # fmt: skip
    made = standard(model)
    assert not {"BatchNormalization", "Dropout"} & set(kinds(made))
    assert len(layers_of(made)) == 3
    scheme = unsigned_scheme()
    quantized = insert_qdq(made, ranges_of(made, IMAGES, scheme), scheme).model
    assert sqnr_db(answers(model), run_model(quantized, IMAGES)) > 25


def test_files_of_torchs_older_exporter_in_training_mode(network: object) -> None:
    import torch

    mode = torch.onnx.TrainingMode.TRAINING
    model = exported(network, dynamo=False, opset_version=13, training=mode, do_constant_folding=False)
    with pytest.raises(InputError, match="exported in training mode"):
        standard_form(model)


@pytest.mark.parametrize("optimize", [True, False])
def test_files_of_torchs_newer_exporter(network: object, optimize: bool) -> None:
    import torch

    model = exported(network, dynamo=True, opset_version=18, optimize=optimize, verbose=False,
                     dynamic_shapes=({0: torch.export.Dim("batch")},))  # fmt: skip
    made = standard(model)
    assert not {"BatchNormalization", "ReduceMean", "MatMul"} & set(kinds(made))
    assert kinds(made)["GlobalAveragePool"] == 1
    assert len(layers_of(made)) == 3


def with_function(opset: int) -> onnx.ModelProto:
    """Return a model of opset 17 whose activation is a function of another opset."""
    model = parsed("y = Conv(x, w)", "", [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")])
    model.graph.node[0].output[0] = "c"
    model.graph.node.append(helper.make_node("Act", ["c"], ["y"], domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    body = [helper.make_node("HardSwish", ["a"], ["b"])]
    model.functions.append(helper.make_function("local", "Act", ["a"], ["b"], body, [helper.make_opsetid("", opset)]))
    return model


@pytest.mark.parametrize("opset", [16, 17, 18])
def test_functions_may_have_another_opset(opset: int) -> None:
    made = standard_form(with_function(opset))
    assert [node.op_type for node in made.graph.node] == ["Conv", "HardSigmoid", "Mul"]
    assert {entry.version for entry in made.opset_import} == {17}


def test_functions_that_cannot_be_converted_are_refused_with_both_opsets() -> None:
    model = with_function(18)
    model.functions[0].node[0].op_type = "Unknown"
    with pytest.raises(InputError, match=r"opset 17 and functions of opset 18, which cannot be converted .* one opset"):
        standard_form(model)


def test_default_axes_of_a_mean_variance_normalization_are_written() -> None:
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    made = standard_form(parsed("m = MeanVarianceNormalization(x) y = Conv(m, w)", "", [weight]))
    assert made.graph.node[-1].op_type == "Conv"
