"""Tests of export.plan: positions of Q/DQ pairs in both placements, for common network structures."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper
from onnx_graphs import make_model, ranges_of, run_model, signed_scheme, sqnr_db, unsigned_scheme

from export.layers import layers_of
from export.plan import plan_quantization
from export.quantize import Quantized, insert_qdq
from export.scheme import Scheme
from runtimes.errors import InputError

AROUND, AT_INPUTS = unsigned_scheme(), signed_scheme()
IMAGES = np.random.default_rng(1).normal(0, 1, (8, 4, 8, 8)).astype(np.float32)
NUMBERS = {"zero": 0.0, "six": 6.0, "half": 0.5, "sixth": 1 / 6, "minus": -0.5, "one": 1.0}

SIZES = {"i0": [0], "i1": [1], "i2": [2], "i4": [4], "row": [0, 1, 4], "column": [0, 4, 1, 1], "box": [0, 4, 1, 1, 1],
         "big": [8, 4, 16, 16]}  # fmt: skip


def conv(name: str, given: str, output: str, **attributes: int) -> NodeProto:
    return helper.make_node("Conv", [given, f"w_{name}"], [output], name=name, **attributes)


def op(kind: str, given: list[str], output: str, **attributes: int | list[int]) -> NodeProto:
    return helper.make_node(kind, given, [output], name=output, **attributes)


def graph(*nodes: NodeProto, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """Return a graph of 1x1 convolutions from 4 to 4 channels, or of the shapes that are given, by the nodes' names."""
    rng = np.random.default_rng(0)
    used = {name for node in nodes for name in node.input}
    constants = {f"w_{node.name}": rng.normal(0, 0.7, shapes.get(node.name, (4, 4, 1, 1))).astype(np.float32)
                 for node in nodes if node.op_type == "Conv"}  # fmt: skip
    constants |= {name: np.asarray(value, np.float32) for name, value in NUMBERS.items() if name in used}
    constants |= {name: np.asarray(value) for name, value in SIZES.items() if name in used}
    return make_model(list(nodes), constants)


def read_as(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return what each operator reads, but for constants and Q/DQ."""
    constants = ("weight_dequantized", "bias_dequantized", "bias_float")
    return {
        node.name: [name for name in node.input if not name.endswith(constants)]
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    }


def quantized(model: onnx.ModelProto, scheme: Scheme = AROUND, float_nodes: frozenset[str] = frozenset()) -> Quantized:
    made = insert_qdq(model, ranges_of(model, IMAGES, scheme), scheme, float_nodes=float_nodes)
    assert sqnr_db(run_model(model, IMAGES), run_model(made.model, IMAGES, exact=True)) > 25
    return made


def around_every_operator(model: onnx.ModelProto, float_nodes: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return what the plan for ONNX Runtime quantizes, after checking that the file answers like float32."""
    quantized(model, AROUND, float_nodes)
    return plan_quantization(model, AROUND, float_nodes).range_of


def test_a_residual_add_is_integer_with_all_that_it_reads() -> None:
    model = graph(conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), conv("b", "ra", "cb"),
                  op("Add", ["cb", "ra"], "s"), op("Relu", ["s"], "rs"), conv("c", "rs", "y"))  # fmt: skip
    assert around_every_operator(model) == {name: name for name in ("x", "ra", "cb", "rs")}
    plan = plan_quantization(model, AROUND)
    assert plan.clamps == {"ra": "ca", "rs": "s"}
    assert plan.integer_nodes == {"a", "b", "c", "s"}
    assert plan.ranged == ["x", "ra", "cb", "rs"]
    assert plan.raw_reads == frozenset()


def test_the_parts_of_a_concat_have_ranges_of_their_own() -> None:
    model = graph(conv("a", "x", "ca"), conv("b", "x", "cb"), op("Concat", ["ca", "cb"], "k", axis=1),
                  conv("c", "k", "y"), c=(4, 8, 1, 1))  # fmt: skip
    assert around_every_operator(model) == {name: name for name in ("x", "ca", "cb", "k")}
    assert "k" in plan_quantization(model, AROUND).integer_nodes


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pools_move_values_or_are_integer_operators(kind: str) -> None:
    model = graph(conv("a", "x", "ca"), op(kind, ["ca"], "p", kernel_shape=[2, 2], strides=[2, 2]), conv("b", "p", "y"))
    moves = kind == "MaxPool"
    assert around_every_operator(model) == {"x": "x", "ca": "ca", "p": "ca" if moves else "p"}
    assert plan_quantization(model, AROUND).integer_nodes == ({"a", "b"} if moves else {"a", "b", "p"})
    assert quantized(model).float_ops == {}


@pytest.mark.parametrize("between", ["Identity", "Relu"])
def test_a_dilated_average_pool_reads_floats(between: str) -> None:
    """ONNX Runtime rejects it between Q/DQ pairs."""
    model = graph(conv("a", "x", "ca"), op(between, ["ca"], "r"), op("AveragePool", ["r"], "p", kernel_shape=[2, 2]),
                  conv("b", "p", "y"))  # fmt: skip
    model.opset_import[0].version = 19
    model.graph.node[2].attribute.append(helper.make_attribute("dilations", [2, 2]))
    around_every_operator(model)
    assert plan_quantization(model, AROUND).integer_nodes == {"a", "b"}


def test_ranges_go_through_chains_of_operators_that_move_values() -> None:
    model = graph(conv("a", "x", "ca"), op("MaxPool", ["ca"], "m", kernel_shape=[2, 2]), op("Identity", ["m"], "i"),
                  op("Transpose", ["i"], "t", perm=[0, 1, 3, 2]), conv("b", "t", "y"))  # fmt: skip
    assert around_every_operator(model) == {"x": "x", "ca": "ca", "m": "ca", "i": "ca", "t": "ca"}


def test_operators_without_an_integer_kernel_read_and_write_floats() -> None:
    model = graph(conv("a", "x", "ca"), op("Sigmoid", ["ca"], "g"), conv("b", "g", "y"))
    assert around_every_operator(model) == {"x": "x", "ca": "ca", "g": "g"}
    assert quantized(model).float_ops == {"Sigmoid": 1}


def test_a_squeeze_excite_product_of_two_tensors_is_integer() -> None:
    model = graph(conv("a", "x", "ca"), op("GlobalAveragePool", ["ca"], "p"), conv("s", "p", "cs"),
                  op("Clip", ["cs", "zero", "six"], "g"), op("Mul", ["ca", "g"], "m"), conv("b", "m", "y"))  # fmt: skip
    assert list(around_every_operator(model)) == ["x", "ca", "p", "g", "m"]
    plan = plan_quantization(model, AROUND)
    assert {"p", "m"} <= plan.integer_nodes
    assert plan.rescaled == {}


def test_products_with_constants_stay_float_unless_they_are_one_positive_number() -> None:
    for factor, goes in (("sixth", True), ("minus", False)):
        model = graph(conv("a", "x", "ca"), op("Mul", ["ca", factor], "m"), conv("b", "m", "y"))
        plan = plan_quantization(model, AROUND)
        assert (plan.rescaled == {"m": ("ca", pytest.approx(1 / 6))}) is goes
        assert ("m" in plan.range_of) is not goes
        around_every_operator(model)


def test_a_product_of_a_product_is_read_from_the_same_integers() -> None:
    model = graph(conv("a", "x", "ca"), op("Mul", ["ca", "sixth"], "m"), conv("b", "m", "cb"),
                  op("Mul", ["m", "half"], "n"), conv("c", "n", "cc"), op("Add", ["cb", "cc"], "y"))  # fmt: skip
    assert plan_quantization(model, AROUND).rescaled == {
        "m": ("ca", pytest.approx(1 / 6)),
        "n": ("ca", pytest.approx(1 / 12)),
    }
    assert list(around_every_operator(model)) == ["x", "ca", "cb", "cc"]


def test_an_add_of_one_number_is_integer_and_of_a_vector_is_not() -> None:
    model = graph(conv("a", "x", "ca"), op("Add", ["ca", "half"], "s"), conv("b", "s", "y"))
    assert plan_quantization(model, AROUND).integer_nodes == {"a", "b", "s"}
    around_every_operator(model)
    vector = numpy_helper.from_array(np.ones((1, 4, 1, 1), np.float32), "half")
    model.graph.initializer[-1].CopyFrom(vector)
    assert plan_quantization(model, AROUND).integer_nodes == {"a", "b"}
    around_every_operator(model)


def test_a_tensor_that_two_layers_read_has_one_pair() -> None:
    model = graph(conv("a", "x", "ca"), conv("b", "ca", "cb"), conv("c", "ca", "cc"), op("Add", ["cb", "cc"], "y"))
    assert around_every_operator(model) == {name: name for name in ("x", "ca", "cb", "cc")}
    made = quantized(model).model
    assert sum(node.op_type == "QuantizeLinear" and node.input[0] == "ca" for node in made.graph.node) == 1
    assert read_as(made)["b"] == read_as(made)["c"] == ["ca_dequantized"]


@pytest.mark.parametrize("scheme", [AROUND, AT_INPUTS], ids=["around", "inputs"])
def test_the_graphs_outputs_are_float(scheme: Scheme, residual_model: onnx.ModelProto) -> None:
    chain = graph(conv("a", "x", "y"))
    for model in (chain, residual_model):
        made = quantized(model, scheme)
        assert "y" not in made.plan.range_of
        assert made.model.graph.output == model.graph.output
        writer = next(node for node in made.model.graph.node if "y" in node.output)
        assert writer.op_type in ("Conv", "Gemm")


@pytest.mark.parametrize("scheme", [AROUND, AT_INPUTS], ids=["around", "inputs"])
def test_an_output_that_a_layer_reads_too_is_given_out_as_a_float(scheme: Scheme) -> None:
    model = graph(conv("a", "x", "ca"), conv("b", "ca", "y"))
    model.graph.output.append(helper.make_tensor_value_info("ca", 1, ["batch", 4, 8, 8]))
    made = insert_qdq(model, dict.fromkeys(plan_quantization(model, scheme).ranged, (-6.0, 6.0)), scheme)
    onnx.checker.check_model(made.model, full_check=True)
    assert [value.name for value in made.model.graph.output] == ["y", "ca"]


def test_operators_that_shall_stay_float_leave_their_neighbours_integer() -> None:
    model = graph(conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), conv("b", "ra", "cb"), op("Add", ["cb", "ra"], "s"),
                  conv("c", "s", "y"))  # fmt: skip
    plan = plan_quantization(model, AROUND, frozenset({"b"}))
    assert plan.integer_nodes == {"a", "s", "c"}
    assert list(plan.range_of) == ["x", "ra", "cb", "s"]  # the Add still reads integers
    around_every_operator(model, frozenset({"b"}))
    assert (
        plan_quantization(model, AROUND, frozenset({"a", "s"})).clamps == {}
    )  # a Relu behind a float layer clamps itself
    around_every_operator(model, frozenset({"a", "s"}))
    at_inputs = plan_quantization(model, AT_INPUTS, frozenset({"b"}))
    assert (at_inputs.integer_nodes, list(at_inputs.range_of)) == ({"a", "c"}, ["x", "s"])
    quantized(model, AT_INPUTS, frozenset({"b"}))


SHAPES_OF_GRAPHS = {
    "downsample": [conv("down", "x", "cd"), conv("a", "x", "ca"), op("Add", ["cd", "ca"], "s"), conv("b", "s", "y")],
    "scaled": [conv("a", "x", "ca"), op("Mul", ["ca", "sixth"], "m"), conv("b", "m", "y")],
    "hard-swish": [conv("a", "x", "ca"), op("Mul", ["ca", "sixth"], "m"), op("Add", ["m", "half"], "n"),
                   op("Clip", ["n", "zero", "one"], "g"), op("Mul", ["ca", "g"], "h"), conv("b", "h", "y")],
    "squeeze-excite": [conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), op("GlobalAveragePool", ["ra"], "p"),
                       conv("b", "p", "cb"), op("Clip", ["cb", "zero", "one"], "g"), op("Mul", ["ra", "g"], "m"),
                       conv("c", "m", "y")],
    "concat": [conv("a", "x", "ca"), op("MaxPool", ["ca"], "p", kernel_shape=[1, 1]), conv("b", "p", "cb"),
               op("Concat", ["cb", "p"], "k", axis=2), conv("c", "k", "y")],
}  # fmt: skip


@pytest.mark.parametrize("scheme", [AROUND, AT_INPUTS], ids=["around", "inputs"])
@pytest.mark.parametrize("shape", SHAPES_OF_GRAPHS)
def test_whichever_layers_stay_float_no_other_range_is_needed(shape: str, scheme: Scheme) -> None:
    model = graph(*SHAPES_OF_GRAPHS[shape])
    layers, ranges = list(layers_of(model)), ranges_of(model, IMAGES, scheme)
    expected = run_model(model, IMAGES)
    for count in range(len(layers)):
        for kept in map(frozenset, itertools.combinations(layers, count)):
            made = insert_qdq(model, ranges, scheme, float_nodes=kept)
            assert set(made.weights) == set(layers) - kept
            assert sqnr_db(expected, run_model(made.model, IMAGES, exact=True)) > 20, kept


def test_pairs_at_layer_inputs_stand_before_each_layer_and_on_the_shortcut() -> None:
    model = graph(conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), conv("b", "ra", "cb"), op("Add", ["cb", "ra"], "s"),
                  op("Relu", ["s"], "rs"), conv("c", "rs", "cc"), op("Clip", ["cc", "zero", "six"], "k"),
                  conv("d", "k", "y"))  # fmt: skip
    made = quantized(model, AT_INPUTS)
    assert made.plan.range_of == {name: name for name in ("x", "ra", "rs", "k")}
    assert made.plan.clamps == {}
    assert made.plan.raw_reads == frozenset()
    reads = read_as(made.model)
    assert reads["s"] == ["cb", "ra_dequantized"]  # nothing between a layer and what its kernel does behind it
    assert (reads["ra"], reads["rs"], reads["k"][0]) == (["ca"], ["s"], "cc")
    assert (reads["a"], reads["b"], reads["c"], reads["d"]) == \
        (["x_dequantized"], ["ra_dequantized"], ["rs_dequantized"], ["k_dequantized"])  # fmt: skip


def test_of_a_downsampling_block_the_later_branch_stays_raw() -> None:
    main = [conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), conv("b", "ra", "cb")]
    for nodes, add, raw, paired in (
        ([*main, conv("down", "x", "cd")], ["cb", "cd"], "cd", "cb"),
        ([conv("down", "x", "cd"), *main], ["cb", "cd"], "cb", "cd"),
        ([conv("down", "x", "cd"), *main], ["cd", "cb"], "cb", "cd"),
    ):
        made = quantized(graph(*nodes, op("Add", add, "s"), op("Relu", ["s"], "y")), AT_INPUTS)
        assert set(made.plan.range_of) == {"x", "ra", paired}
        assert set(read_as(made.model)["s"]) == {raw, f"{paired}_dequantized"}
        assert read_as(made.model)["y"] == ["s"]


def test_linear_bottlenecks_add_to_the_float_sum_of_the_block_before() -> None:
    """MobileNetV2: s1 is the shortcut of the next block, whose own convolution is added raw."""
    model = graph(conv("a", "x", "ca"), conv("b", "ca", "cb"), op("Add", ["ca", "cb"], "s1"), conv("c", "s1", "cc"),
                  op("Add", ["s1", "cc"], "s2"), conv("d", "s2", "y"))  # fmt: skip
    made = quantized(model, AT_INPUTS)
    assert list(made.plan.range_of) == ["x", "ca", "s1", "s2"]
    assert read_as(made.model)["s1"] == ["ca_dequantized", "cb"]
    assert read_as(made.model)["s2"] == ["s1_dequantized", "cc"]


def test_what_is_neither_layer_nor_shortcut_reads_the_raw_values() -> None:
    model = graph(conv("a", "x", "ca"), conv("b", "ca", "cb"), op("Sigmoid", ["ca"], "g"), op("Mul", ["cb", "g"], "y"))
    made = quantized(model, AT_INPUTS)
    assert made.plan.raw_reads == {("g", 0)}
    assert read_as(made.model)["g"] == ["ca"]
    assert read_as(made.model)["y"] == ["cb", "g"]
    assert made.float_ops == {"Sigmoid": 1, "Mul": 1}


def test_adds_of_no_layer_and_of_constants_are_no_epilogue() -> None:
    model = graph(conv("a", "x", "ca"), op("Relu", ["ca"], "ra"), op("Sigmoid", ["ca"], "g"),
                  op("Add", ["ra", "g"], "s"), op("Add", ["s", "half"], "t"), conv("b", "t", "y"))  # fmt: skip
    made = quantized(model, AT_INPUTS)
    assert list(made.plan.range_of) == ["x", "t"]
    assert read_as(made.model)["s"] == ["ra", "g"]


def test_a_layer_added_to_itself_keeps_one_side_raw() -> None:
    model = graph(conv("a", "x", "ca"), op("Add", ["ca", "ca"], "y"))
    assert sorted(read_as(quantized(model, AT_INPUTS).model)["y"]) == ["ca", "ca_dequantized"]


@pytest.mark.parametrize("normalize", ["Div", "Sqrt", "Reciprocal"])
def test_an_epsilon_and_the_variance_before_it_stay_float(normalize: str) -> None:
    """A variance in 8 bits has no relative precision where it is small, and an epsilon becomes 0."""
    divide = [op("Div", ["ca", "e"], "d")] if normalize == "Div" else \
        [op("Sqrt", ["e"], "r"), op("Div", ["ca", "r"], "d")] if normalize == "Sqrt" else \
        [op("Reciprocal", ["e"], "r"), op("Mul", ["ca", "r"], "d")]  # fmt: skip
    model = graph(conv("a", "x", "ca"), op("Mul", ["ca", "ca"], "q"), op("GlobalAveragePool", ["q"], "v"),
                  op("Add", ["v", "half"], "e"), *divide, conv("b", "d", "y"))  # fmt: skip
    assert list(around_every_operator(model)) == ["x", "ca", "d"]
    assert plan_quantization(model, AROUND).integer_nodes == {"a", "b"}


@pytest.mark.parametrize("scheme", [AROUND, AT_INPUTS])
def test_an_average_with_the_probabilities_of_a_softmax_stays_float(scheme: Scheme) -> None:
    """YOLO computes the sides of boxes so."""
    nodes = [conv("a", "x", "a"), op("Softmax", ["a"], "s", axis=1), op("Transpose", ["s"], "t", perm=[0, 1, 3, 2]),
             conv("average", "t", "y")]  # fmt: skip
    plan = plan_quantization(graph(*nodes), scheme)
    assert plan.integer_nodes == {"a"}
    assert not {"s", "t"} & set(plan.range_of)


def test_computations_of_sizes_stay_what_they_are() -> None:
    model = graph(conv("a", "x", "ca"), op("Shape", ["ca"], "n"), op("Slice", ["n", "i0", "i2"], "n0"),
                  op("Slice", ["n", "i2", "i4"], "n1"), op("Concat", ["n0", "n1"], "m", axis=0),
                  op("Reshape", ["ca", "m"], "r"), conv("b", "r", "y"))  # fmt: skip
    assert around_every_operator(model) == {"x": "x", "ca": "ca", "r": "ca"}


def test_a_gemm_whose_output_no_integer_operator_reads_writes_floats() -> None:
    nodes = [
        op("Flatten", ["x"], "f"),
        op("Gemm", ["f", "w"], "g"),
        op("Tanh", ["g"], "t"),
        op("Gemm", ["t", "v"], "y"),
    ]
    weights = np.random.default_rng(0).normal(0, 0.1, (256, 6)).astype(np.float32)
    model = make_model(nodes, {"w": weights, "v": weights[:6, :3].copy()}, output_rank=2)
    assert list(plan_quantization(model, AROUND).range_of) == ["f", "t"]
    assert plan_quantization(model, AROUND).integer_nodes == {"g", "y"}


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_of_other_dimensions_stay_float_and_leave_the_pool_before_them_integer(dimensions: int) -> None:
    shape = "row" if dimensions == 1 else "box"
    model = graph(conv("a", "x", "ca"), op("GlobalAveragePool", ["ca"], "p"), op("Reshape", ["p", shape], "q"),
                  conv("odd", "q", "o"), op("Reshape", ["o", "column"], "g"), op("Mul", ["ca", "g"], "m"),
                  conv("b", "m", "y"), odd=(1, 1, 1) if dimensions == 1 else (4, 4, 1, 1, 1))  # fmt: skip
    around_every_operator(model)
    assert plan_quantization(model, AROUND).integer_nodes == {"a", "p", "m", "b"}


@pytest.mark.parametrize("kind", ["Slice", "Split"])
def test_parts_of_the_channels_have_the_range_of_all(kind: str) -> None:
    if kind == "Split":
        parts = [helper.make_node("Split", ["ca"], ["p0", "p1"], name="split", axis=1, num_outputs=2)]
    else:
        parts = [op("Slice", ["ca", "i0", "i2", "i1"], "p0"), op("Slice", ["ca", "i2", "i4", "i1"], "p1")]
    model = graph(conv("a", "x", "ca"), *parts, conv("b", "p1", "cb"), op("Concat", ["p0", "cb"], "k", axis=1),
                  conv("c", "k", "y"), b=(2, 2, 1, 1))  # fmt: skip
    assert around_every_operator(model) == {"x": "x", "ca": "ca", "p0": "ca", "p1": "ca", "cb": "cb", "k": "k"}


@pytest.mark.parametrize(("before", "integer"), [("Elu", False), ("Relu", True), ("Identity", True)])
def test_a_sigmoid_of_floats_stays_float(before: str, integer: bool) -> None:
    scheme = unsigned_scheme(operators=AROUND.operators | {"Sigmoid"})
    model = graph(conv("a", "x", "ca"), op(before, ["ca"], "e"), op("Sigmoid", ["e"], "g"), op("Mul", ["ca", "g"], "m"),
                  conv("b", "m", "y"))  # fmt: skip
    plan = quantized(model, scheme).plan
    assert ("g" in plan.integer_nodes, "e" in plan.range_of) == (integer, integer)
    assert "m" in plan.integer_nodes


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_map_enlarged_by_repetition_has_the_range_of_the_small_one(mode: str) -> None:
    resize = helper.make_node("Resize", ["ca", "", "", "big"], ["r"], name="r", mode=mode)
    model = graph(conv("a", "x", "ca"), resize, conv("b", "r", "y"))
    assert plan_quantization(model, AROUND).range_of == {"x": "x", "ca": "ca", "r": "ca" if mode == "nearest" else "r"}


@pytest.mark.parametrize("kind", ["Erf", "Tanh"])
def test_the_parts_of_gelu_stay_float_for_one_kernel_to_compute_all(kind: str) -> None:
    model = graph(conv("a", "x", "ca"), op("Mul", ["ca", "half"], "d"), op(kind, ["d"], "e"),
                  op("Add", ["e", "one"], "f"), op("Mul", ["ca", "f"], "g"), op("Mul", ["g", "half"], "h"),
                  conv("b", "h", "y"))  # fmt: skip
    assert list(around_every_operator(model)) == ["x", "ca", "h"]
    plan = plan_quantization(model, AROUND)
    assert (plan.integer_nodes, plan.rescaled) == ({"a", "b"}, {})


def test_quantized_and_weightless_models_are_refused() -> None:
    model = graph(conv("a", "x", "y"))
    for scheme in (AROUND, AT_INPUTS):
        with pytest.raises(InputError, match="already quantized; give the float32 model"):
            plan_quantization(quantized(model, scheme).model, scheme)
        with pytest.raises(InputError, match="nothing to quantize"):
            plan_quantization(make_model([op("Relu", ["x"], "y")], {}), scheme)


def test_a_pool_that_also_returns_positions_stays_float() -> None:
    """Positions of the largest values are int64, and no kernel reads integers for them."""
    pool = helper.make_node("MaxPool", ["a"], ["p", "positions"], name="p", kernel_shape=[2, 2], strides=[2, 2])
    unpool = op("MaxUnpool", ["p", "positions"], "u", kernel_shape=[2, 2], strides=[2, 2])
    plan = plan_quantization(graph(conv("a", "x", "a"), pool, unpool, conv("y", "u", "y")), AROUND)
    assert {"p", "positions"}.isdisjoint(plan.range_of)
