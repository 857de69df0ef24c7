"""Tests of the ONNX Runtime backend on a network of one convolution."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.artifact import Artifact, Manifest
from runtimes.backends import ort
from runtimes.errors import ArtifactError, UnavailableError
from runtimes.target import Target

TARGET = Target("board")
RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.standard_normal((5, 3, 3, 3)).astype(np.float32)
BIAS = RANDOM.standard_normal(5).astype(np.float32)


def network(batch: int | str = "N") -> onnx.ModelProto:
    """Return Conv 3x3 with 5 channels, GlobalAveragePool, Flatten over 6 x 6 pixels."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "weight", "bias"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(BIAS, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def by_hand(images: np.ndarray) -> np.ndarray:
    """Return the network's logits in float64."""
    patches = np.lib.stride_tricks.sliding_window_view(images.astype(np.float64), (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", patches, WEIGHT).mean((2, 3)) + BIAS


@pytest.fixture
def onnx_artifact(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Callable[..., Artifact]:
    """Return a maker of ONNX artifacts; its keywords replace manifest fields."""

    def make(content: bytes | None = None, **fields: Any) -> Artifact:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(network().SerializeToString() if content is None else content)
        usual = {"format": "onnx", "input_shape": (None, 3, 6, 6), "labels": tuple("abcde")}
        return Artifact(path, make_manifest(**{**usual, **fields}))

    return make


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[onnxruntime.SessionOptions, list[str]]]:
    """Return the options and providers of every session that is made from now on."""
    calls: list[tuple[onnxruntime.SessionOptions, list[str]]] = []
    real = onnxruntime.InferenceSession

    def record(path: Any, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
        calls.append((options, providers))
        return real(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    return calls


@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits_are_those_worked_out_in_numpy(onnx_artifact: Callable[..., Artifact], count: int) -> None:
    images = RANDOM.standard_normal((count, 3, 6, 6)).astype(np.float32)
    session = ort.load(onnx_artifact(), TARGET)
    (found,) = session.run(images)
    session.close()
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, by_hand(images), rtol=1e-4, atol=1e-5)


def test_the_answer_is_not_overwritten_by_the_next_run(onnx_artifact: Callable[..., Artifact]) -> None:
    session = ort.load(onnx_artifact(), TARGET)
    images = RANDOM.standard_normal((2, 3, 6, 6)).astype(np.float32)
    (first,) = session.run(images)
    session.run(-images)
    np.testing.assert_allclose(first, by_hand(images), rtol=1e-4, atol=1e-5)


def test_more_threads_give_the_same_logits(onnx_artifact: Callable[..., Artifact]) -> None:
    images = RANDOM.standard_normal((4, 3, 6, 6)).astype(np.float32)
    one, two = (ort.load(onnx_artifact(), Target("b", threads=threads)).run(images)[0] for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_threads_of_the_target_reach_the_session(
    onnx_artifact: Callable[..., Artifact], seen: list[tuple[Any, list[str]]], threads: int
) -> None:
    ort.load(onnx_artifact(), Target("board", threads=threads))
    ((options, _),) = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)


def test_only_the_provider_that_was_asked_for_is_given(
    onnx_artifact: Callable[..., Artifact], seen: list[tuple[Any, list[str]]]
) -> None:
    ort.load(onnx_artifact(), TARGET)
    assert [providers for _, providers in seen] == [["CPUExecutionProvider"]]


def test_session_options_of_the_manifest_reach_the_session(
    onnx_artifact: Callable[..., Artifact], seen: list[tuple[Any, list[str]]]
) -> None:
    wanted = {"session.intra_op.allow_spinning": "0", "session.x64quantprecision": "1"}
    ort.load(onnx_artifact(session_options=wanted), TARGET)
    ((options, _),) = seen
    assert {key: options.get_session_config_entry(key) for key in wanted} == wanted


def test_an_absent_provider_is_unavailable_and_those_there_are_named(
    onnx_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    with pytest.raises(
        UnavailableError, match=r"target 'board'.* has no CPUExecutionProvider here; it has AzureExecutionProvider"
    ):
        ort.load(onnx_artifact(), TARGET)


def test_another_provider_than_the_one_asked_for_is_an_error(
    onnx_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "get_providers", lambda _: ["XnnpackExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.raises(UnavailableError, match="needs CPUExecutionProvider, but onnxruntime uses Xnnpack"):
        ort.load(onnx_artifact(), TARGET)


def test_without_onnxruntime_the_package_to_install_is_named(
    onnx_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match="pip install onnxruntime"):
        ort.load(onnx_artifact(), TARGET)


def changed(**fields: Any) -> bytes:
    """Return the network with another opset, IR version or operator."""
    model = network()
    if "opset" in fields:
        model.opset_import[0].version = fields["opset"]
    if "ir_version" in fields:
        model.ir_version = fields["ir_version"]
    if "operator" in fields:
        model.graph.node[0].op_type = fields["operator"]
    return model.SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no protobuf" * 20, id="garbage"),
        pytest.param(changed()[:-20], id="cut off"),
        pytest.param(changed(opset=99), id="opset of tomorrow"),
        pytest.param(changed(ir_version=99), id="IR of tomorrow"),
        pytest.param(changed(operator="Nope"), id="unknown operator"),
    ],
)
def test_a_file_that_onnxruntime_refuses_is_named(onnx_artifact: Callable[..., Artifact], content: bytes) -> None:
    artifact = onnx_artifact(content)
    with pytest.raises(ArtifactError, match=f"onnxruntime {onnxruntime.__version__} cannot load it") as caught:
        ort.load(artifact, TARGET)
    assert str(artifact.path) in str(caught.value)


def test_weights_that_are_missing_beside_the_file_are_an_artifact_error(
    onnx_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    onnx.save(network(), tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=0)
    (tmp_path / "x.data").unlink()
    with pytest.raises(ArtifactError, match=r"x\.data"):
        ort.load(onnx_artifact((tmp_path / "x.onnx").read_bytes()), TARGET)


def test_a_missing_file_is_an_artifact_error(onnx_artifact: Callable[..., Artifact]) -> None:
    artifact = onnx_artifact()
    artifact.path.unlink()
    with pytest.raises(ArtifactError, match=r"tiny\.onnx"):
        ort.load(artifact, TARGET)


def test_a_closed_session_runs_no_more(onnx_artifact: Callable[..., Artifact]) -> None:
    session = ort.load(onnx_artifact(), TARGET)
    session.close()
    with pytest.raises(AssertionError, match="closed"):
        session.run(np.zeros((1, 3, 6, 6), np.float32))


def test_a_fake_file_is_refused_for_its_format(onnx_artifact: Callable[..., Artifact]) -> None:
    with pytest.raises(ArtifactError, match="fake"):
        ort.load(onnx_artifact(format="fake"), TARGET)


@pytest.mark.parametrize("options", [{"": "1"}, {"k" * 2000: "1"}, {"session.dynamic_block_base": "abc"}])
def test_session_options_that_onnxruntime_refuses_are_an_artifact_error(
    onnx_artifact: Callable[..., Artifact], options: dict[str, str]
) -> None:
    with pytest.raises(ArtifactError):
        ort.load(onnx_artifact(session_options=options), TARGET)


@pytest.mark.parametrize(
    "fields", [{"input_name": "pixels"}, {"output_name": "scores"}, {"input_shape": (None, 3, 9, 9)}]
)
def test_a_manifest_of_another_network_is_an_artifact_error(
    onnx_artifact: Callable[..., Artifact], fields: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactError):
        ort.load(onnx_artifact(**fields), TARGET)


def test_what_an_operator_can_not_do_is_one_error_and_no_log(
    onnx_artifact: Callable[..., Artifact], capfd: pytest.CaptureFixture[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "seven"], ["logits"])],
        "impossible",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "C"])],
        [numpy_helper.from_array(np.array([7, -1]), "seven")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    session = ort.load(onnx_artifact(model.SerializeToString()), TARGET)
    with pytest.raises(ArtifactError, match=r"tiny.onnx: cannot run on \[2, 3, 6, 6\], export it again .*Reshape"):
        session.run(np.zeros((2, 3, 6, 6), np.float32))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.STRING])
def test_answers_of_another_type_are_refused(onnx_artifact: Callable[..., Artifact], kind: int) -> None:
    model = network()
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(helper.make_node("Cast", ["flat"], ["logits"], to=kind))
    model.graph.output[0].type.tensor_type.elem_type = kind
    with pytest.raises(ArtifactError, match=r"output are tensor\(float\) and tensor\((int64|string)\), not"):
        ort.load(onnx_artifact(model.SerializeToString()), TARGET)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_inputs_and_outputs_of_other_floats_are_float32_here(onnx_artifact: Callable[..., Artifact], kind: int) -> None:
    model = network()
    model.graph.node[0].input[0], model.graph.node[-1].output[0] = "first", "last"
    model.graph.node.insert(0, helper.make_node("Cast", ["images"], ["first"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Cast", ["last"], ["logits"], to=kind))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    images = RANDOM.standard_normal((2, 3, 6, 6)).astype(np.float32)
    (found,) = ort.load(onnx_artifact(model.SerializeToString()), TARGET).run(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(images), rtol=0.01, atol=0.01)


def test_an_open_batch_takes_that_of_the_manifest(onnx_artifact: Callable[..., Artifact]) -> None:
    images = RANDOM.standard_normal((1, 3, 6, 6)).astype(np.float32)
    (found,) = ort.load(onnx_artifact(input_shape=(1, 3, 6, 6)), TARGET).run(images)
    np.testing.assert_allclose(found, by_hand(images), rtol=1e-4, atol=1e-4)
