"""Batches of fixed and free size, logits, outputs by name, and exact kernels."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper, numpy_helper

from compress.quantization import ort_graph
from compress.quantization.ort_graph import (
    OrtGraph,
    batches,
    logits,
    mixes_images,
    require_separate_images,
    runs_on_single_images_only,
    visit_tensors,
)
from runtimes import environment
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def images(count: int) -> EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return EvalSet(pixels, None, tuple(map(str, range(count))), tuple("abcde"), PREPROCESSING, "digest")


def with_batch(size: int) -> onnx.ModelProto:
    model = onnx_graphs.residual_model(channels=3)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return model


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_batches_of_free_size_contain_each_image_once(count: int, sizes: list[int]) -> None:
    result = list(batches(images(count), None))
    assert [len(batch) for batch in result] == sizes
    np.testing.assert_array_equal(np.concatenate(result), PREPROCESSING.normalize(images(count).images))


@pytest.mark.parametrize(("count", "size"), [(9, 5), (3, 8), (10, 5), (2, 1)])
def test_the_first_images_fill_up_the_last_fixed_batch(count: int, size: int) -> None:
    result = list(batches(images(count), size))
    assert {len(batch) for batch in result} == {size}
    assert len(result) == -(-count // size)
    everything = np.concatenate(result)
    expected = PREPROCESSING.normalize(images(count).images)
    np.testing.assert_array_equal(everything, expected[np.arange(len(everything)) % count])


@pytest.mark.parametrize("size", [1, 5, 16])
def test_logits_have_one_row_for_each_image_for_any_batch(size: int) -> None:
    evalset = images(11)
    network = OrtGraph(with_batch(size))
    assert network.fixed_batch == size
    assert OrtGraph(onnx_graphs.residual_model(channels=3)).fixed_batch is None
    expected = onnx_graphs.run_model(onnx_graphs.residual_model(channels=3), PREPROCESSING.normalize(evalset.images))
    np.testing.assert_allclose(logits(with_batch(size), evalset), expected, rtol=1e-4, atol=1e-5)


def test_a_graph_that_fails_on_two_images_is_recognized() -> None:
    model = onnx_graphs.residual_model(channels=3)
    assert not runs_on_single_images_only(model)
    assert not runs_on_single_images_only(with_batch(1))
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", [flatten.input[0], "one"], [flatten.output[0]], "flatten"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "one"))
    assert runs_on_single_images_only(model)


def test_a_graph_returns_every_output_by_name() -> None:
    model = onnx_graphs.with_outputs(onnx_graphs.residual_model(channels=3), ["s", "f"])
    network = OrtGraph(model)
    batch = PREPROCESSING.normalize(images(2).images)
    result = network.run({network.inputs[0]: batch})
    assert list(result) == network.outputs == ["y", "s", "f"]
    assert result["s"].shape == (2, 8, 8, 8)
    np.testing.assert_allclose(result["s"], onnx_graphs.tensor_values(model, "s", batch), rtol=1e-5)


@pytest.mark.parametrize(("instruction_set", "exact", "option"), [
    ("x86-avx2", True, "1"), ("x86-avx2", False, None), ("x86-vnni", True, None), ("arm64", True, None)
])  # fmt: skip
def test_exact_kernels_are_requested_only_where_others_saturate(
    monkeypatch: pytest.MonkeyPatch, instruction_set: str, exact: bool, option: str | None
) -> None:
    monkeypatch.setattr(environment, "detect_instruction_set", lambda: instruction_set)
    requested = {}
    entry = ort_graph.ort.SessionOptions.add_session_config_entry

    class Options(ort_graph.ort.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            requested[key] = value
            entry(self, key, value)

    monkeypatch.setattr(ort_graph.ort, "SessionOptions", Options)
    OrtGraph(onnx_graphs.residual_model(channels=3), exact)
    assert requested.get("session.x64quantprecision") == option


def windows() -> onnx.ModelProto:
    """Return a model that cuts each image of 8 px into 4 windows, which are the first axis of the tensor `w`."""
    node = helper.make_node
    nodes = [node("Reshape", ["x", "cut"], ["w"], name="cut"), node("Relu", ["w"], ["r"], name="relu"),
             node("Reshape", ["r", "join"], ["y"], name="join")]  # fmt: skip
    return onnx_graphs.make_model(
        nodes, {"cut": np.asarray((-1, 3, 16)), "join": np.asarray((-1, 192))}, 3, output_rank=2
    )


@pytest.mark.parametrize("fixed", [None, 1, 3])
def test_images_run_alone_if_a_tensor_has_another_first_axis(fixed: int | None) -> None:
    model = windows()
    if fixed:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
    assert mixes_images(model, ["w"], images(5))
    assert not mixes_images(model, ["x", "y"], images(5))
    seen: list[tuple[str, tuple[int, ...], float, range]] = []
    done: list[int] = []
    visit_tensors(model, ["x", "w"], images(5), lambda name, values, indices:
                  seen.append((name, values.shape, float(values[-1].max()), indices)), done.append)  # fmt: skip
    assert done == [1, 2, 3, 4, 5]
    for index, (of_x, of_w) in enumerate(zip(seen[::2], seen[1::2], strict=True)):
        assert (of_x[:2], of_x[3]) == (("x", (1, 3, 8, 8)), range(index, index + 1))
        assert (of_w[:2], of_w[3]) == (("w", (4 * (fixed or 1), 3, 16)), range(index, index + 1))


def mixing(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Return a classifier with operators before its output."""
    model = onnx_graphs.residual_model(channels=3)
    model.graph.node[-1].output[0] = "0"
    model.graph.node.extend(nodes)
    return model


def require_separate(model: onnx.ModelProto) -> None:
    graph, noise = OrtGraph(model), np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    require_separate_images(graph, noise, graph.run({"x": noise}))


@pytest.mark.parametrize("nodes", [
    (helper.make_node("Softmax", ["0"], ["y"], axis=0),),
    (helper.make_node("ReduceMean", ["0", "axes"], ["mean"]), helper.make_node("Sub", ["0", "mean"], ["y"])),
])  # fmt: skip
def test_images_that_change_the_outputs_of_others_are_refused(nodes: tuple[onnx.NodeProto, ...]) -> None:
    model = mixing(*nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([0]), "axes"))
    with pytest.raises(InputError, match=r"'y' for an image change with the other images of its batch; .* batch 1"):
        require_separate(model)


def test_random_outputs_are_refused() -> None:
    noise, add = helper.make_node("RandomNormalLike", ["0"], ["n"]), helper.make_node("Add", ["0", "n"], ["y"])
    with pytest.raises(InputError, match=r"other values each time that it runs; .* without random numbers"):
        require_separate(mixing(noise, add))


def test_networks_that_compute_each_image_alone_are_accepted() -> None:
    require_separate(mixing(helper.make_node("Softmax", ["0"], ["y"], axis=1)))


def test_a_graph_that_onnx_runtime_rejects_is_one_line() -> None:
    model = onnx_graphs.residual_model(channels=3)
    model.graph.node[0].op_type = "Unknown"
    with pytest.raises(
        CompressError, match=r"cannot load a graph of this network \(.*Unknown.*\); use the float32 file"
    ):
        OrtGraph(model)
