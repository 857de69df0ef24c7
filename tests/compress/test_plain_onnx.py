"""Tests of describing an ONNX classifier without a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.plain_onnx import PlainFile
from runtimes.errors import CompressError, InputError
from runtimes.preprocessing import Preprocessing
from runtimes.session import load
from runtimes.target import Target

SMALL = Preprocessing(9, 8, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


def with_input(shape: list[Any], kind: int = TensorProto.FLOAT, outputs: int = 1) -> onnx.ModelProto:
    """Return a model of one input that averages its pixels."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["t" if shape[-1] == 3 and len(shape) == 4 else "f"], ["p"]),
        *(helper.make_node("Flatten", ["p"], [f"y{index}"]) for index in range(outputs)),
    ]
    graph = helper.make_graph(
        nodes if shape[-1] == 3 else [nodes[0], *nodes[2:]], "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, ["n", None]) for index in range(outputs)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_file_is_described_and_runs(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    file = PlainFile.read(saved(tmp_path / "a.onnx", model))
    assert (file.image.sides, file.image.dtype, file.size_bytes) == (
        (8, 8),
        "float32",
        (tmp_path / "a.onnx").stat().st_size,
    )
    artifact = file.artifact(SMALL)
    manifest = artifact.manifest
    assert (manifest.labels, manifest.input_shape) == (("0", "1", "2", "3", "4"), (None, 3, 8, 8))
    assert (manifest.precision, manifest.opset, manifest.output) == ("float32", 18, "logits")
    images = SMALL.normalize(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8))
    session = load(artifact, Target("local", batch=3))
    np.testing.assert_allclose(session.run(images)[0], onnx_graphs.run_model(model, images), rtol=1e-5)


def test_a_file_whose_weights_alone_are_integers_is_int8(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    (weights,) = [tensor for tensor in model.graph.initializer if tensor.name == "w4"]
    integers = np.rint(numpy_helper.to_array(weights) * 100).clip(-127, 127).astype(np.int8)
    weights.CopyFrom(numpy_helper.from_array(integers, "integers"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "scale"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["integers", "scale"], ["w4"]))
    artifact = PlainFile.read(saved(tmp_path / "a.onnx", model)).artifact(SMALL)
    assert artifact.manifest.precision == "int8"


def test_weights_in_another_file_belong_to_it(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    digests = []
    for factor in (1, 2):
        for tensor in model.graph.initializer:
            if tensor.name == "w4":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), "w4"))
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
        file = PlainFile.read(tmp_path / "a.onnx")
        assert file.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
        assert len(file.artifact(SMALL).manifest.labels) == 5
        digests.append(file.sha256)
        (tmp_path / "a.onnx").unlink()
        (tmp_path / "a.data").unlink()
    assert digests[0] != digests[1]


def test_missing_external_weights_are_one_line(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    (tmp_path / "a.data").unlink()
    with pytest.raises(CompressError, match=r"a\.onnx: .*a\.data") as caught:
        PlainFile.read(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_open_sizes_take_the_size_of_the_preprocessing(tmp_path: Path) -> None:
    file = PlainFile.read(saved(tmp_path / "a.onnx", with_input(["n", 3, "h", "w"])))
    assert file.image.sides == (None, None)
    assert file.artifact(SMALL).manifest.input_shape == (None, 3, 8, 8)
    assert file.artifact(Preprocessing(20, 16)).manifest.input_shape == (None, 3, 16, 16)


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    artifact = PlainFile.read(saved(tmp_path / "a.onnx", with_input([4, 3, 8, 8]))).artifact(SMALL)
    assert artifact.manifest.input_shape == (4, 3, 8, 8)


def test_pixels_as_input_are_nhwc(tmp_path: Path) -> None:
    file = PlainFile.read(saved(tmp_path / "a.onnx", with_input(["n", 8, 8, 3], TensorProto.UINT8)))
    manifest = file.artifact(SMALL).manifest
    assert (manifest.input_dtype, manifest.input_layout, len(manifest.labels)) == ("uint8", "NHWC", 3)


def test_softmax_and_sigmoid_are_recognized(tmp_path: Path) -> None:
    binary = PlainFile.read(saved(tmp_path / "a.onnx", onnx_graphs.binary_model())).artifact(SMALL).manifest
    assert (binary.labels, binary.output) == (("0", "1"), "probabilities")
    single = PlainFile.read(saved(tmp_path / "b.onnx", onnx_graphs.binary_model(sigmoid=False))).artifact(SMALL)
    assert single.manifest.labels == ("0",)
    constant = onnx_graphs.binary_model()
    constant.graph.node[-1].op_type = "Softmax"
    with pytest.raises(InputError, match=r"c\.onnx: the model ends in a Softmax of one value, which is always 1"):
        PlainFile.read(saved(tmp_path / "c.onnx", constant)).artifact(SMALL)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_input(["n", 3, 5000, 5000]), r"is \(\?, 3, 5000, 5000\), not images of at most 4096 x 4096 pixels"),
    ],
    ids=["huge"],
)
def test_another_form_is_one_clear_line(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        PlainFile.read(saved(tmp_path / "a.onnx", model))
    assert str(caught.value).startswith(f"{tmp_path / 'a.onnx'}: ")
    assert "\n" not in str(caught.value)


def test_another_size_is_refused(tmp_path: Path) -> None:
    file = PlainFile.read(saved(tmp_path / "a.onnx", onnx_graphs.residual_model(channels=3)))
    with pytest.raises(
        InputError, match="takes images of 8 x 8 pixels, and the preprocessing crops to 16 x 16; set --crop 8"
    ):
        file.artifact(Preprocessing(20, 16))


def test_other_outputs_have_their_kind(tmp_path: Path) -> None:
    features = with_input(["n", 3, 8, 8])
    features.graph.node.pop()
    features.graph.node[-1].output[0] = "y0"
    manifest = PlainFile.read(saved(tmp_path / "a.onnx", features)).artifact(SMALL).manifest
    assert (manifest.kind, manifest.labels) == ("classes", ("0", "1", "2"))
    two = PlainFile.read(saved(tmp_path / "b.onnx", with_input(["n", 3, 8, 8], outputs=2))).artifact(SMALL).manifest
    assert (two.kind, two.output_names) == ("classes", ("y0", "y1"))


def test_an_output_without_a_row_for_each_image_is_refused(tmp_path: Path) -> None:
    model = with_input(["n", 3, 8, 8])
    model.graph.node[-1].output[0] = "rows"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "one_row"))
    model.graph.node.append(helper.make_node("Reshape", ["rows", "one_row"], ["y0"]))
    with pytest.raises(InputError, match=r"returns \(1, 6\) for 2 images: the first axis of an output"):
        PlainFile.read(saved(tmp_path / "a.onnx", model)).artifact(SMALL)


def test_outputs_that_do_not_depend_on_the_images_are_noted(tmp_path: Path) -> None:
    model = with_input(["n", 3, 8, 8])
    model.graph.node.append(helper.make_node("Constant", [], ["anchors"], value_floats=[0.1, 0.2, 0.3]))
    model.graph.output.append(helper.make_tensor_value_info("anchors", TensorProto.FLOAT, [3]))
    file = PlainFile.read(saved(tmp_path / "a.onnx", model))
    manifest = file.artifact(SMALL).manifest
    assert (manifest.kind, manifest.output_names) == ("classes", ("y0", "anchors"))
    note = file.remark_on_outputs(manifest)
    assert note == "the output 'anchors' does not depend on the images and is not judged"


def test_a_file_that_runs_on_single_images_only_can_be_measured(tmp_path: Path) -> None:
    model = with_input(["n", 3, 8, 8])
    model.graph.node[-1].output[0] = "rows"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3]), "one_row"))
    model.graph.node.append(helper.make_node("Reshape", ["rows", "one_row"], ["y0"]))
    manifest = PlainFile.read(saved(tmp_path / "a.onnx", model)).artifact(SMALL).manifest
    assert (manifest.kind, len(manifest.labels), manifest.input_shape[0]) == ("classes", 3, 1)


def test_a_file_without_outputs_is_refused(tmp_path: Path) -> None:
    model = with_input(["n", 3, 8, 8])
    model.graph.ClearField("output")
    with pytest.raises(InputError, match=r"a\.onnx: the graph has no outputs"):
        PlainFile.read(saved(tmp_path / "a.onnx", model)).artifact(SMALL)


@pytest.mark.parametrize("content", [b"x", b"", b"\x08"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx: ") as caught:
        PlainFile.read(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
