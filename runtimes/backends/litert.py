"""Runtime `litert`: LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, InputError, UnavailableError
from runtimes.outputs.kinds import Arrays
from runtimes.session import Images, Session
from runtimes.target import Target

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

PACKAGE = "ai-edge-litert"


class LitertSession:
    """One interpreter of a file with one input, one output and a fixed batch.

    For a file with int8 input, `run` quantizes the images, and latency includes that.
    """

    def __init__(self, interpreter: Interpreter, artifact: Artifact) -> None:
        self._path = artifact.path
        self._interpreter: Interpreter | None = interpreter
        self._input = interpreter.get_input_details()[0]
        self._shape = tuple(int(side) for side in self._input["shape"])
        self._output_index = interpreter.get_output_details()[0]["index"]

    def run(self, images: Images) -> Arrays:
        """See `runtimes.session.Session.run`; raises ArtifactError where an operator fails."""
        assert self._interpreter is not None, "the session was closed"
        if images.shape != self._shape:
            raise InputError(f"{self._path}: takes images of shape {list(self._shape)}, not {list(images.shape)}")
        self._interpreter.set_tensor(self._input["index"], self._as_input(images))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ArtifactError(
                f"{self._path}: cannot run on {list(images.shape)}, convert it again ({reason})"
            ) from error
        return (self._interpreter.get_tensor(self._output_index),)  # a copy

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""
        self._interpreter = None

    def _as_input(self, images: Images) -> Images | npt.NDArray[np.int8]:
        if self._input["dtype"] == np.float32:
            return images
        scale, zero_point = self._input["quantization"]
        integers = np.divide(images, np.float32(scale))
        np.rint(integers, out=integers)
        np.add(integers, np.float32(zero_point), out=integers)
        return np.clip(integers, -128, 127, out=integers).astype(np.int8)


def load(artifact: Artifact, target: Target) -> Session:
    """Load a .tflite artifact; raises UnavailableError without the provider, ArtifactError for a rejected file."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UnavailableError(
            f"runtime 'litert' needs the package ai-edge-litert: pip install ai-edge-litert ({error})"
        ) from error

    if artifact.manifest.format != "tflite":
        raise ArtifactError(f"{artifact.path}: runtime 'litert' runs .tflite files, this is {artifact.manifest.format}")
    if target.provider != "cpu":
        raise UnavailableError(f"target '{target.name}': runtime 'litert' has no provider {target.provider}; use cpu")
    try:
        interpreter = Interpreter(model_path=str(artifact.path), num_threads=target.threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{artifact.path}: LiteRT cannot load it: {' '.join(str(error).split())[:300]}") from error
    _check_signature(interpreter, artifact)
    return LitertSession(interpreter, artifact)


def _check_signature(interpreter: Interpreter, artifact: Artifact) -> None:
    """Raise ArtifactError if the file's input or output differs from the manifest's."""
    manifest = artifact.manifest
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    names = ([value["name"] for value in inputs], [value["name"] for value in outputs])
    if names != ([manifest.input_name], [manifest.output_name]):
        raise ArtifactError(
            f"{artifact.path}: has inputs {names[0]} and outputs {names[1]}, its manifest names "
            f"{manifest.input_name!r} and {manifest.output_name!r}"
        )
    shape = [int(side) for side in inputs[0]["shape"]]
    if shape != list(manifest.input_shape):
        raise ArtifactError(f"{artifact.path}: input has shape {shape}, its manifest says {list(manifest.input_shape)}")
    if inputs[0]["dtype"] not in (np.float32, np.int8) or outputs[0]["dtype"] != np.float32:
        raise ArtifactError(f"{artifact.path}: must have float32 or int8 input and float32 output; convert it again")
