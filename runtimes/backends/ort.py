"""ONNX Runtime."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, UnavailableError
from runtimes.session import Images, Session
from runtimes.target import Target

if TYPE_CHECKING:
    import onnxruntime

PACKAGE = "onnxruntime"
TYPES = {"float32": ("tensor(float)", "tensor(float)"), "uint8": ("tensor(uint8)", "tensor(float)")}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtSession:
    """One ONNX Runtime session with one input and one output."""

    def __init__(self, session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        self._failures = (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented)
        self._path = artifact.path
        self._session: onnxruntime.InferenceSession | None = session
        self._input_name = artifact.manifest.input_name
        self._output_names = [artifact.manifest.output_name]

    def run(self, images: Images) -> npt.NDArray[np.float32]:
        """See `runtimes.session.Session.run`; raises ArtifactError where an operator of the file can't."""
        assert self._session is not None, "the session was closed"
        try:
            logits: npt.NDArray[np.float32] = self._session.run(self._output_names, {self._input_name: images})[0]
        except self._failures as error:
            told = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{self._path}: can't be run on {list(images.shape)}, export it again ({told})"
            ) from error
        return logits

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""
        self._session = None


def load(artifact: Artifact, target: Target) -> Session:
    """Load an ONNX artifact; raises UnavailableError without the provider and ArtifactError for a refused file."""
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
            f"target '{target.name}' asked for {provider}, onnxruntime runs {session.get_providers()[0]}"
        )
    _check_signature(session, artifact)
    return OrtSession(session, artifact)


def _session(ort: ModuleType, artifact: Artifact, target: Target, provider: str) -> onnxruntime.InferenceSession:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    refused = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument, state.NotImplemented,
               state.NoSuchFile, RuntimeError, ValueError)  # fmt: skip
    try:
        for key, value in artifact.manifest.session_options.items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(artifact.path, options, providers=[provider])
    except refused as error:
        raise ArtifactError(f"{artifact.path}: onnxruntime {ort.__version__} refuses it: {error}") from error


def _check_signature(session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
    """Compare the file's input and output with the manifest's, so that a mismatch is told here and not in a run."""
    manifest = artifact.manifest
    names = ([value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()])
    if names != ([manifest.input_name], [manifest.output_name]):
        raise ArtifactError(
            f"{artifact.path}: has inputs {names[0]} and outputs {names[1]}, its manifest names "
            f"{manifest.input_name!r} and {manifest.output_name!r}"
        )
    types, wanted = (session.get_inputs()[0].type, session.get_outputs()[0].type), TYPES[manifest.input_dtype]
    if types != wanted:
        raise ArtifactError(f"{artifact.path}: takes {types[0]} and gives {types[1]}, not "
                            f"{' and '.join(wanted)}; export it again")  # fmt: skip
    shape = [size if isinstance(size, int) else None for size in session.get_inputs()[0].shape]
    if shape != list(manifest.file_shape):
        raise ArtifactError(f"{artifact.path}: takes {shape}, its manifest says {list(manifest.file_shape)}")
