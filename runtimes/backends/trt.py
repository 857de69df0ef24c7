"""Runtime `trt`: TensorRT and TensorRT-RTX on NVIDIA GPUs."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import math
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, CompressError, UnavailableError
from runtimes.lineage import BuildRecord, find_record
from runtimes.outputs.kinds import CLASSIFIERS, Arrays
from runtimes.session import Images, Session
from runtimes.target import Target

PACKAGE = "tensorrt"
RTX = "tensorrt_rtx"
CUDA = "cuda.bindings.runtime"
WARM_UP_RUNS = 2  # before a CUDA graph is captured


def package(cross: bool) -> ModuleType:
    """Return the module tensorrt or, if it is not installed, tensorrt_rtx; raises UnavailableError without both.

    cross: to build for another GPU than this machine's, which only tensorrt_rtx supports.
    """
    for name in (RTX,) if cross else (PACKAGE, RTX):
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    packages = "tensorrt_rtx: pip install tensorrt-rtx-cu13 cuda-bindings"
    if not cross:
        packages = "tensorrt (JetPack includes it: pip install tensorrt cuda-bindings elsewhere) or " + packages
    raise UnavailableError(f"runtime 'trt' needs the package {packages}")


def compute_capability() -> str | None:
    """Return the first GPU's compute capability, as in "8.7"; None without a GPU, its driver or cuda-bindings."""
    cuda = _cuda()
    if cuda is None:
        return None
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        return None
    attributes = cuda.cudaDeviceAttr
    major, minor = (
        _done(cuda, cuda.cudaDeviceGetAttribute(attribute, 0))
        for attribute in (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
    )
    return f"{major}.{minor}"


class TrtSession:
    """One engine with one input and one output, with pinned host memory and its own CUDA stream."""

    def __init__(self, trt: ModuleType, cuda: Any, engine: Any, artifact: Artifact, target: Target) -> None:
        """Allocate memory for the engine's largest batch."""
        self._cuda, self._manifest, self._target = cuda, artifact.manifest, target
        self._context = engine.create_execution_context()
        if self._context is None:
            raise CompressError(f"{artifact.path}: not enough GPU memory to run it")
        self._stream = _done(cuda, cuda.cudaStreamCreate())
        self._started, self._finished = (_done(cuda, cuda.cudaEventCreate()) for _ in range(2))
        self._graphs: dict[int, Any] = {}
        max_batch = _largest_batch(engine, artifact)
        item = np.dtype(self._manifest.input_dtype).itemsize
        self._inputs = _Buffer(cuda, max_batch * math.prod(self._manifest.input_shape[1:]) * item)
        self._columns = math.prod(int(size) for size in engine.get_tensor_shape(self._manifest.output_name)[1:])
        self._outputs = _Buffer(cuda, max_batch * self._columns * 4)
        self._context.set_tensor_address(self._manifest.input_name, self._inputs.device)
        self._context.set_tensor_address(self._manifest.output_name, self._outputs.device)

    def run(self, images: Images) -> Arrays:
        """See `runtimes.session.Session.run`."""
        count = len(images)
        pinned = self._inputs.host[: images.nbytes]
        pinned[:] = np.ascontiguousarray(images).view(np.uint8).ravel()
        graph = self._graph(count, images) if self._target.cuda_graph else None
        _done(self._cuda, self._cuda.cudaEventRecord(self._started, self._stream))
        if graph is None:
            self._enqueue(count, images)
        else:
            _done(self._cuda, self._cuda.cudaGraphLaunch(graph, self._stream))
        _done(self._cuda, self._cuda.cudaEventRecord(self._finished, self._stream))
        _done(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
        size = count * self._columns * 4
        return (self._outputs.host[:size].view(np.float32).reshape(count, self._columns).copy(),)

    def device_ms(self) -> float:
        """See `runtimes.session.OnDevice.device_ms`."""
        return float(_done(self._cuda, self._cuda.cudaEventElapsedTime(self._started, self._finished)))

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""
        for graph in self._graphs.values():
            _done(self._cuda, self._cuda.cudaGraphExecDestroy(graph))
        self._graphs.clear()
        self._context = None
        for buffer in (self._inputs, self._outputs):
            buffer.free(self._cuda)
        for event in (self._started, self._finished):
            _done(self._cuda, self._cuda.cudaEventDestroy(event))
        _done(self._cuda, self._cuda.cudaStreamDestroy(self._stream))

    def _enqueue(self, count: int, images: Images) -> None:
        """Queue the copies and the engine on the stream."""
        cuda, kind = self._cuda, self._cuda.cudaMemcpyKind
        self._context.set_input_shape(self._manifest.input_name, tuple(images.shape))
        size = count * self._columns * 4
        _done(cuda, cuda.cudaMemcpyAsync(self._inputs.device, self._inputs.host.ctypes.data, images.nbytes,
                                         kind.cudaMemcpyHostToDevice, self._stream))  # fmt: skip
        if not self._context.execute_async_v3(int(self._stream)):
            raise CompressError(f"target '{self._target.name}': TensorRT could not run a batch of {count}")
        _done(cuda, cuda.cudaMemcpyAsync(self._outputs.host.ctypes.data, self._outputs.device, size,
                                         kind.cudaMemcpyDeviceToHost, self._stream))  # fmt: skip

    def _graph(self, count: int, images: Images) -> Any:
        """Return the CUDA graph for this batch; capture it first if needed, after warm-up runs."""
        cuda = self._cuda
        if count not in self._graphs:
            for _ in range(WARM_UP_RUNS):
                self._enqueue(count, images)
            _done(cuda, cuda.cudaStreamSynchronize(self._stream))
            mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal
            _done(cuda, cuda.cudaStreamBeginCapture(self._stream, mode))
            self._enqueue(count, images)
            graph = _done(cuda, cuda.cudaStreamEndCapture(self._stream))
            self._graphs[count] = _done(cuda, cuda.cudaGraphInstantiate(graph, 0))
            _done(cuda, cuda.cudaGraphDestroy(graph))
        return self._graphs[count]


class _Buffer:
    """Device memory and pinned host memory of the same size."""

    def __init__(self, cuda: Any, size: int) -> None:
        self.device = _done(cuda, cuda.cudaMalloc(size))
        self._pinned = _done(cuda, cuda.cudaMallocHost(size))
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(self._pinned)))

    def free(self, cuda: Any) -> None:  # Any: the module cuda.bindings.runtime
        """Free the memory."""
        _done(cuda, cuda.cudaFree(self.device))
        _done(cuda, cuda.cudaFreeHost(self._pinned))


def load(artifact: Artifact, target: Target) -> Session:
    """Load an engine that was built for this GPU with the installed TensorRT.

    Raises UnavailableError without the package, driver or GPU, ArtifactError for an engine of another GPU or version.
    """
    if artifact.manifest.format != "trt":
        raise ArtifactError(f"{artifact.path}: runtime 'trt' runs engines, this is {artifact.manifest.format}")
    if artifact.manifest.kind not in CLASSIFIERS:
        raise ArtifactError(f"{artifact.path}: runtime 'trt' runs classifiers, this is of the kind "
                            f"{artifact.manifest.kind}; use the runtime 'ort'")  # fmt: skip
    record = find_record(artifact.manifest.lineage, BuildRecord)
    if record is None:
        raise ArtifactError(f"{artifact.path}: its manifest has no build record; build it again")
    here = compute_capability()
    if here is None:
        raise UnavailableError(f"target '{target.name}': no usable NVIDIA GPU; install its driver and cuda-bindings")
    trt = package(cross=False)
    for name, present, built in (
        ("the package", trt.__name__, record.package),
        (trt.__name__, trt.__version__, record.version),
        ("compute capability", here, record.compute_capability),
    ):
        if present != built:
            raise ArtifactError(f"{artifact.path}: was built for {name} {built}, this is {present}; build it here")
    logger = trt.Logger(trt.Logger.ERROR)
    engine = trt.Runtime(logger).deserialize_cuda_engine(artifact.path.read_bytes())
    if engine is None:
        raise ArtifactError(f"{artifact.path}: {trt.__name__} {trt.__version__} cannot load it; build it again")
    return TrtSession(trt, _cuda(), engine, artifact, target)


def _largest_batch(engine: Any, artifact: Artifact) -> int:
    if artifact.manifest.input_shape[0] is not None:
        return artifact.manifest.input_shape[0]
    return int(engine.get_tensor_profile_shape(artifact.manifest.input_name, 0)[2][0])


def _cuda() -> Any:
    """Return NVIDIA's bindings of the CUDA runtime, None if they are not installed."""
    try:
        return importlib.import_module(CUDA)
    except ImportError:
        return None


def _done(cuda: Any, result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call; raises CompressError for an error code."""
    error, *values = result
    if error != cuda.cudaError_t.cudaSuccess:
        raise CompressError(f"CUDA error: {error.name}")
    return values[0] if values else None
