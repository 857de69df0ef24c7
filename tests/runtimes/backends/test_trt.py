"""Tests of the TensorRT session with a fake CUDA in NumPy, and with real engines where there is a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtimes import measure
from runtimes.artifact import Artifact, Manifest
from runtimes.backends import trt
from runtimes.console import SilentConsole
from runtimes.errors import CompressError
from runtimes.session import OnDevice
from runtimes.target import Target

TARGET = Target("board", runtime="trt", provider="cuda")
MOST = 4
SUCCESS = "success"


class Cuda:
    """As much of cuda.bindings.runtime as a session calls: memory is host memory, a stream does all at once.

    log: calls by name. fails: names of calls that fail. While a graph is captured, work is kept and not done.
    """

    cudaError_t = SimpleNamespace(cudaSuccess=SUCCESS)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeGlobal=0)  # noqa: N815

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fails: set[str] = set()
        self.blocks: dict[int, Any] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.handles = 0

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def call(*given: Any) -> tuple[Any, ...]:
            self.log.append(name)
            if name in self.fails:
                return (SimpleNamespace(name="cudaErrorMemoryAllocation"),)
            own = getattr(type(self), f"_{name}", None)
            value = own(self, *given) if own else self._handle()
            return (SUCCESS,) if value is None else (SUCCESS, value)

        return call

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.captured is None:
            work()
        else:
            self.captured.append(work)

    def _handle(self) -> int:
        self.handles += 1
        return self.handles

    def _cudaMalloc(self, size: int) -> int:  # noqa: N802
        block = (ctypes.c_uint8 * size)()
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    _cudaMallocHost = _cudaMalloc  # noqa: N815

    def _cudaFree(self, address: int) -> None:  # noqa: N802
        del self.blocks[address]

    _cudaFreeHost = _cudaFree  # noqa: N815

    def _cudaMemcpyAsync(self, to: int, of: int, size: int, kind: int, stream: int) -> None:  # noqa: N802
        self.enqueue(lambda: ctypes.memmove(to, of, size) and None)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        self.captured = []

    def _cudaStreamEndCapture(self, stream: int) -> list[Callable[[], None]]:  # noqa: N802
        captured, self.captured = self.captured, None
        assert captured is not None
        return captured

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:  # noqa: N802
        return graph

    def _cudaGraphLaunch(self, graph: list[Callable[[], None]], stream: int) -> None:  # noqa: N802
        for work in graph:
            work()

    def _cudaEventElapsedTime(self, start: int, end: int) -> float:  # noqa: N802
        return 0.25


class Context:
    """An execution context that answers each image's mean red and green."""

    def __init__(self, cuda: Cuda, names: tuple[str, str]) -> None:
        self._cuda, self._names = cuda, names
        self._address: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self.refuses = False

    def set_tensor_address(self, name: str, address: int) -> None:
        self._address[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert name == self._names[0]
        self._shape = shape

    def execute_async_v3(self, stream: int) -> bool:
        shape = self._shape

        def work() -> None:
            given, answers = (self._address[name] for name in self._names)
            floats(answers, (shape[0], 2))[:] = floats(given, shape).mean((2, 3))[:, :2]

        self._cuda.enqueue(work)
        return not self.refuses


def floats(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return memory as an array."""
    return np.ctypeslib.as_array((ctypes.c_float * int(np.prod(shape))).from_address(address)).reshape(shape)


class Session:
    """A session on a CUDA of NumPy, with what it is made of."""

    def __init__(self, manifest: Manifest, target: Target = TARGET) -> None:
        self.cuda = Cuda()
        self.context: Context | None = Context(self.cuda, (manifest.input_name, manifest.output_name))
        engine = SimpleNamespace(
            create_execution_context=lambda: self.context,
            get_tensor_shape=lambda name: (-1, 2),
            get_tensor_profile_shape=lambda name, profile: [(1,), (1,), (MOST,)],
        )
        self.artifact = Artifact(Path("m.engine"), manifest)
        self.open = lambda: trt.TrtSession(SimpleNamespace(), self.cuda, engine, self.artifact, target)  # type: ignore[arg-type]


@pytest.fixture
def manifest(make_manifest: Callable[..., Manifest]) -> Manifest:
    return make_manifest(format="trt", labels=("cat", "dog"))


def some(count: int, side: int = 4) -> np.ndarray:
    return np.random.default_rng(count).normal(0, 1, (count, 3, side, side)).astype(np.float32)


def expected(images: np.ndarray) -> np.ndarray:
    return images.mean((2, 3))[:, :2]


@pytest.mark.parametrize("graph", [False, True])
def test_batches_of_any_size_are_answered_each_with_its_own(manifest: Manifest, graph: bool) -> None:
    session = Session(manifest, replace(TARGET, cuda_graph=graph)).open()
    kept = []
    for count in (1, MOST, 2, 1, 3, MOST):
        images = some(count)
        kept.append((session.run(images)[0], expected(images)))
    for found, wanted in kept:  # at the end: a later run must not write into what an earlier one gave
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert found.dtype == np.float32


def test_a_graph_is_captured_once_for_each_batch_size(manifest: Manifest) -> None:
    made = Session(manifest, replace(TARGET, cuda_graph=True))
    session = made.open()
    for count in (1, 1, 2, 1, 2):
        session.run(some(count))
    assert made.cuda.log.count("cudaGraphInstantiate") == 2
    assert made.cuda.log.count("cudaGraphLaunch") == 5


@pytest.mark.parametrize("graph", [False, True])
def test_the_devices_clock_starts_before_the_first_copy_and_stops_behind_the_last(
    manifest: Manifest, graph: bool
) -> None:
    made = Session(manifest, replace(TARGET, cuda_graph=graph))
    session = made.open()
    session.run(some(1))
    made.cuda.log.clear()
    session.run(some(1))
    work = ["cudaGraphLaunch"] if graph else ["cudaMemcpyAsync", "cudaMemcpyAsync"]
    assert made.cuda.log == ["cudaEventRecord", *work, "cudaEventRecord", "cudaStreamSynchronize"]
    assert isinstance(session, OnDevice)
    assert session.device_ms() == 0.25


def test_all_that_was_taken_is_given_back(manifest: Manifest) -> None:
    made = Session(manifest, replace(TARGET, cuda_graph=True))
    session = made.open()
    session.run(some(1))
    assert len(made.cuda.blocks) == 4
    session.close()
    assert not made.cuda.blocks
    for what in ("Event", "Stream"):
        assert made.cuda.log.count(f"cuda{what}Create") == made.cuda.log.count(f"cuda{what}Destroy")
    assert made.cuda.log.count("cudaGraphInstantiate") == made.cuda.log.count("cudaGraphExecDestroy")
    assert made.cuda.log.count("cudaStreamEndCapture") == made.cuda.log.count("cudaGraphDestroy")


def test_a_gpu_without_memory_is_one_line(manifest: Manifest) -> None:
    made = Session(manifest)
    made.cuda.fails = {"cudaMalloc"}
    with pytest.raises(CompressError, match="CUDA error: cudaErrorMemoryAllocation"):
        made.open()
    made.context = None
    with pytest.raises(CompressError, match=r"m\.engine: not enough GPU memory to run it"):
        made.open()


def test_a_batch_that_the_engine_refuses_is_one_line(manifest: Manifest) -> None:
    made = Session(manifest)
    session = made.open()
    assert made.context is not None
    made.context.refuses = True
    with pytest.raises(CompressError, match="target 'board': TensorRT could not run a batch of 2"):
        session.run(some(2))


def test_measurements_hold_the_devices_time(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Session(manifest)
    monkeypatch.setattr(measure, "load", lambda artifact, target: made.open())
    short = measure.Timing(warmup=1, blocks=2, runs_per_block=2)
    (found,) = measure.measure([made.artifact], TARGET, None, short, SilentConsole())
    assert found.device_ms_p50 == 0.25
    assert measure.Measurement.from_json(found.to_json()).device_ms_p50 == 0.25


# With a GPU


@pytest.mark.skipif(trt.compute_capability() is None, reason="no usable NVIDIA GPU")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_engine_answers_as_onnx_runtime_does(tmp_path: Path, precision: str, graph: bool) -> None:
    """Build for the GPU that is here, run batches of several sizes, compare with ONNX Runtime's float32."""
    onnx = pytest.importorskip("onnx")
    from onnx_graphs import ranges_of, residual_model

    from compress.quantization.schemes import SCHEMES
    from export.float16 import half_precision
    from export.quantize import insert_qdq
    from export.to_trt import to_trt
    from runtimes.backends import ort
    from runtimes.files import sha256_file
    from runtimes.preprocessing import Preprocessing

    float32 = residual_model(3)
    images = np.random.default_rng(1).normal(0, 1, (7, 3, 8, 8)).astype(np.float32)
    scheme = SCHEMES["tensorrt"]
    model = {
        "float32": lambda: float32,
        "float16": lambda: half_precision(float32),
        "int8": lambda: half_precision(insert_qdq(float32, ranges_of(float32, images, scheme), scheme).model),
    }[precision]()

    def stored(name: str, given: Any, precision: Any) -> Artifact:
        path = tmp_path / name
        onnx.save(given, path)
        return Artifact(path, Manifest(
            sha256_file(path), path.stat().st_size, "onnx", precision, "x", (None, 3, 8, 8), "y",
            Preprocessing(8, 8), tuple("abcde"),
        ))  # fmt: skip

    wanted = ort.load(stored("float32.onnx", float32, "float32"), Target("cpu")).run(images)[0]
    target = replace(TARGET, cuda_graph=graph)
    made = to_trt(stored("model.onnx", model, precision), target, tmp_path / "m.engine", SilentConsole())
    session = trt.load(made, target)
    try:
        for count in (1, 3, 7, 1):
            found = session.run(images[:count])[0]
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(
                found, wanted[:count], atol={"float32": 1e-2, "float16": 2e-2, "int8": 0.2}[precision] * scale
            )
            assert isinstance(session, OnDevice)
            assert 0 < session.device_ms() < 1000
    finally:
        session.close()
