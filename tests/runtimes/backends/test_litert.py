"""Tests of the LiteRT runtime with a fake interpreter; tests/export/test_to_litert.py runs real files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from runtimes.artifact import Artifact, Manifest
from runtimes.backends import litert
from runtimes.errors import ArtifactError, InputError, UnavailableError
from runtimes.target import Target

TARGET = Target("board", runtime="litert", threads=2)
SHAPE = (2, 3, 4, 4)
needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None,
    reason="ai-edge-litert is not installed: pip install -e '.[litert]'",
)


class Interpreter:
    """Interpreter that returns the mean colours of its input."""

    made: ClassVar[list[dict[str, Any]]] = []
    input: ClassVar[dict[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        self.made.append(settings)

    def allocate_tensors(self) -> None:
        """Do nothing."""

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "name": "images", "shape": np.asarray(SHAPE), **self.input}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 9, "name": "logits", "dtype": np.float32}]

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert (index, value.dtype) == (0, self.input["dtype"])
        self.given = value

    def invoke(self) -> None:
        self.answer = self.given.astype(np.float32).mean((2, 3))

    def get_tensor(self, index: int) -> np.ndarray:
        assert index == 9
        return self.answer


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Interpreter]:
    monkeypatch.setattr(Interpreter, "made", [])
    monkeypatch.setattr(Interpreter, "input", {"dtype": np.float32})
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=Interpreter))
    return Interpreter


@pytest.fixture
def tflite(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Callable[..., Artifact]:
    """Return a maker of .tflite artifacts; its keywords replace manifest fields."""

    def make(content: bytes = b"", **fields: Any) -> Artifact:
        path = tmp_path / "net.tflite"
        path.write_bytes(content)
        return Artifact(path, make_manifest(**{"format": "tflite", "input_shape": SHAPE, **fields}))

    return make


def test_threads_of_the_target_reach_the_interpreter(
    stand_in: type[Interpreter], tflite: Callable[..., Artifact]
) -> None:
    artifact = tflite()
    litert.load(artifact, TARGET)
    assert stand_in.made == [{"model_path": str(artifact.path), "num_threads": 2}]


@pytest.mark.usefixtures("stand_in")
def test_images_go_in_and_logits_come_out(tflite: Callable[..., Artifact]) -> None:
    session = litert.load(tflite(), TARGET)
    images = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_array_equal(session.run(images)[0], images.mean((2, 3)))
    session.close()
    with pytest.raises(AssertionError, match="closed"):
        session.run(images)


def test_images_for_an_int8_layer_are_quantized(stand_in: type[Interpreter], tflite: Callable[..., Artifact]) -> None:
    stand_in.input = {"dtype": np.int8, "quantization": (0.5, -3)}
    session = litert.load(tflite(), TARGET)
    images = np.zeros(SHAPE, np.float32)
    images[0], images[1] = 2.2, -1000
    np.testing.assert_array_equal(session.run(images)[0], [[4 - 3] * 3, [-128] * 3])


@pytest.mark.usefixtures("stand_in")
def test_another_batch_is_told(tflite: Callable[..., Artifact]) -> None:
    with pytest.raises(InputError, match=r"takes images of shape \[2, 3, 4, 4\], not \[1, 3, 4, 4\]"):
        litert.load(tflite(), TARGET).run(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("fields", [{"input_name": "x"}, {"output_name": "x"}, {"input_shape": (1, 3, 4, 4)}])
def test_a_manifest_of_another_network_is_an_artifact_error(
    tflite: Callable[..., Artifact], fields: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactError, match="its manifest"):
        litert.load(tflite(**fields), TARGET)


def test_a_file_of_other_types_is_refused(stand_in: type[Interpreter], tflite: Callable[..., Artifact]) -> None:
    stand_in.input = {"dtype": np.uint8}
    with pytest.raises(ArtifactError, match="must have float32 or int8 input"):
        litert.load(tflite(), TARGET)


@pytest.mark.usefixtures("stand_in")
def test_what_it_can_not_run_is_told(tflite: Callable[..., Artifact]) -> None:
    with pytest.raises(ArtifactError, match=r"runs \.tflite files, this is onnx"):
        litert.load(tflite(format="onnx"), TARGET)
    with pytest.raises(UnavailableError, match="no provider cuda; use cpu"):
        litert.load(tflite(), Target("board", runtime="litert", provider="cuda"))


def test_without_litert_the_package_to_install_is_named(
    tflite: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UnavailableError, match="pip install ai-edge-litert"):
        litert.load(tflite(), TARGET)


@needs_litert
@pytest.mark.parametrize("content", [b"", b"no flatbuffer" * 20])
def test_a_file_that_litert_refuses_is_named(tflite: Callable[..., Artifact], content: bytes) -> None:
    artifact = tflite(content)
    with pytest.raises(ArtifactError, match="LiteRT cannot load it") as caught:
        litert.load(artifact, TARGET)
    assert str(artifact.path) in str(caught.value)
