"""Runtime `ort`: ONNX Runtime."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, UnavailableError
from runtimes.outputs.kinds import Arrays
from runtimes.session import Images, Session
from runtimes.target import Target

if TYPE_CHECKING:
    import onnxruntime

PACKAGE = "onnxruntime"
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
TYPES = {"float32": tuple(FLOATS), "uint8": ("tensor(uint8)",)}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtSession:
    """One ONNX Runtime session with one input.

    A file of float16 or float64 takes and returns float32 here; the conversion is part of a call.
    """

    def __init__(self, session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        self._failures = (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented)
        self._path = artifact.path
        self._session: onnxruntime.InferenceSession | None = session
        self._input_name = artifact.manifest.input_name
        self._input_type = FLOATS.get(session.get_inputs()[0].type, np.uint8)
        self._output_names = list(artifact.manifest.output_names)

    def run(self, images: Images) -> Arrays:
        """See `runtimes.session.Session.run`; raises ArtifactError where an operator fails."""
        assert self._session is not None, "the session was closed"
        try:
            inputs = {self._input_name: images.astype(self._input_type, copy=False)}
            return tuple(_as_float32(array) for array in self._session.run(self._output_names, inputs))
        except self._failures as error:
            reason = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{self._path}: cannot run on {list(images.shape)}, export it again ({reason})"
            ) from error

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""
        self._session = None


def load(artifact: Artifact, target: Target) -> Session:
    """Load an ONNX artifact; raises UnavailableError without the provider, ArtifactError for a rejected file."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(
            f"runtime 'ort' needs the package onnxruntime: pip install onnxruntime ({error})"
        ) from error

    if artifact.manifest.format != "onnx":
        raise ArtifactError(f"{artifact.path}: runtime 'ort' runs ONNX files, this is {artifact.manifest.format}")
    provider = PROVIDERS[target.provider]
    if provider not in ort.get_available_providers():
        raise UnavailableError(
            f"target '{target.name}': onnxruntime {ort.__version__} has no {provider} here; "
            f"it has {', '.join(ort.get_available_providers())}"
        )
    session = _session(ort, artifact, target, provider)
    if session.get_providers()[0] != provider:
        raise UnavailableError(
            f"target '{target.name}' needs {provider}, but onnxruntime uses {session.get_providers()[0]}"
        )
    _check_signature(session, artifact)
    return OrtSession(session, artifact)


def _as_float32(array: npt.NDArray[Any]) -> npt.NDArray[Any]:  # Any: outputs are of any type
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def _session(ort: ModuleType, artifact: Artifact, target: Target, provider: str) -> onnxruntime.InferenceSession:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    rejections = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented,
               state.NoSuchFile, RuntimeError, ValueError)  # fmt: skip
    try:
        for key, value in artifact.manifest.session_options.items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(artifact.path, options, providers=[provider])
    except rejections as error:
        raise ArtifactError(f"{artifact.path}: onnxruntime {ort.__version__} cannot load it: {error}") from error


def _check_signature(session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
    """Raise ArtifactError if the file's input or output differs from the manifest's."""
    manifest = artifact.manifest
    names = ([value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()])
    if names != ([manifest.input_name], list(manifest.output_names)):
        raise ArtifactError(
            f"{artifact.path}: has inputs {names[0]} and outputs {names[1]}, its manifest names "
            f"{manifest.input_name!r} and {', '.join(map(repr, manifest.output_names))}"
        )
    types, expected = [session.get_inputs()[0].type], [TYPES[manifest.input_dtype]]
    if manifest.is_classifier:
        types, expected = [*types, session.get_outputs()[0].type], [*expected, TYPES["float32"]]
    if any(kind not in kinds for kind, kinds in zip(types, expected, strict=True)):
        raise ArtifactError(f"{artifact.path}: input and output are {' and '.join(types)}, not "
                            f"{' and '.join(kinds[0] for kinds in expected)}; export it again")  # fmt: skip
    shape = [size if isinstance(size, int) else None for size in session.get_inputs()[0].shape]
    if not manifest.takes(shape):
        raise ArtifactError(f"{artifact.path}: input has shape {shape}, its manifest says {list(manifest.file_shape)}")
