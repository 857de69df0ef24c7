"""Runtime `ov`: OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, UnavailableError
from runtimes.outputs.kinds import Arrays
from runtimes.session import Images, Session
from runtimes.target import Target

if TYPE_CHECKING:
    import openvino

PACKAGE = "openvino"
DEVICES = {"cpu": "CPU"}


class OvSession:
    """One model, compiled once per batch size: a fixed shape is about 20 % faster than a dynamic one."""

    def __init__(self, core: openvino.Core, model: openvino.Model, artifact: Artifact, target: Target) -> None:
        self._core, self._model, self._artifact, self._target = core, model, artifact, target
        self._requests: dict[int, openvino.InferRequest] = {}
        self._compile(target.batch)

    def run(self, images: Images) -> Arrays:
        """See `runtimes.session.Session.run`; raises ArtifactError where an operator fails."""
        import openvino

        request = self._requests.get(len(images)) or self._compile(len(images))
        try:
            request.set_input_tensor(0, openvino.Tensor(images, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            where = f"{self._artifact.path}: cannot run on {list(images.shape)}"
            raise ArtifactError(f"{where}, export it again ({_one_line(error)})") from error
        return tuple(tensor.data.copy() for tensor in request.output_tensors)  # the next run overwrites the tensors

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""
        self._requests.clear()
        del self._core, self._model

    def _compile(self, batch: int) -> openvino.InferRequest:
        options = {
            "INFERENCE_NUM_THREADS": self._target.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # otherwise float32 silently becomes bfloat16 on processors that have it
        }
        try:
            fixed = self._model.clone()
            fixed.reshape([batch, *self._artifact.manifest.file_shape[1:]])
            compiled = self._core.compile_model(fixed, DEVICES[self._target.provider], options)
        except RuntimeError as error:
            raise ArtifactError(f"{self._artifact.path}: OpenVINO cannot compile it: {_one_line(error)}") from error
        _check_threads(compiled, self._target)
        self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]


def load(artifact: Artifact, target: Target) -> Session:
    """Load an ONNX artifact; raises UnavailableError without the device or threads, ArtifactError for a rejected file.

    The manifest's session options are for ONNX Runtime and are ignored.
    """
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(f"runtime 'ov' needs the package openvino: pip install openvino ({error})") from error

    if artifact.manifest.format != "onnx":
        raise ArtifactError(f"{artifact.path}: runtime 'ov' runs ONNX files, this is {artifact.manifest.format}")
    core = openvino.Core()
    device = DEVICES.get(target.provider)
    if device not in core.available_devices:
        raise UnavailableError(
            f"target '{target.name}': runtime 'ov' has no provider {target.provider} here; use {', '.join(DEVICES)}"
        )
    try:
        model = core.read_model(artifact.path)
    except RuntimeError as error:
        raise ArtifactError(f"{artifact.path}: OpenVINO cannot read it: {_one_line(error)}") from error
    _check_signature(model, artifact)
    return OvSession(core, model, artifact, target)


def _check_threads(compiled: openvino.CompiledModel, target: Target) -> None:
    threads = compiled.get_property("INFERENCE_NUM_THREADS")
    if threads != target.threads:
        raise UnavailableError(
            f"target '{target.name}' needs {target.threads} threads, OpenVINO uses {threads} on this machine"
        )


def _check_signature(model: openvino.Model, artifact: Artifact) -> None:
    """Raise ArtifactError if the file's input or output differs from the manifest's."""
    manifest = artifact.manifest
    names = [[value.get_any_name() for value in values] for values in (model.inputs, model.outputs)]
    if names != [[manifest.input_name], list(manifest.output_names)]:
        raise ArtifactError(
            f"{artifact.path}: has inputs {names[0]} and outputs {names[1]}, its manifest names "
            f"{manifest.input_name!r} and {', '.join(map(repr, manifest.output_names))}"
        )
    sides = model.inputs[0].get_partial_shape()
    shape = [None if side.is_dynamic else side.get_length() for side in sides]
    if not manifest.takes(shape):
        raise ArtifactError(f"{artifact.path}: input has shape {shape}, its manifest says {list(manifest.file_shape)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
