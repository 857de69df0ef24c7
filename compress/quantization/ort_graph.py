"""Run ONNX graphs in ONNX Runtime to read intermediate tensors; `runtimes` runs the finished files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from export.scheme import EXACT_KERNELS
from export.standard_form import REJECTIONS
from export.subgraph import with_outputs
from runtimes import environment
from runtimes.errors import CompressError, InputError
from runtimes.evalset import EvalSet

BATCH = 4  # EfficientNet-Lite0 at 224 px has 13 million activations per image: 200 MB per batch
ROUNDING = 1e-3  # relative difference of two runs of the same images; that of kernels is smaller


class OrtGraph:
    """An ONNX Runtime session of a model that returns all its outputs."""

    def __init__(self, model: onnx.ModelProto, exact: bool = True) -> None:
        """Open a session; raise CompressError for a graph that ONNX Runtime rejects.

        exact: use integer kernels that do not saturate on any processor; they may be slower.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if exact and environment.detect_instruction_set() == "x86-avx2":
            for key, value in EXACT_KERNELS.items():
                options.add_session_config_entry(key, value)
        try:
            self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except REJECTIONS as error:
            raise CompressError(f"ONNX Runtime {ort.__version__} cannot load a graph of this network "
                                f"({str(error).splitlines()[0]}); use the float32 file") from error  # fmt: skip
        self.inputs: list[str] = [value.name for value in self._session.get_inputs()]
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]
        shape = self._session.get_inputs()[0].shape
        self.fixed_batch: int | None = shape[0] if shape and isinstance(shape[0], int) else None

    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return every output by name; raise InputError if the model cannot run on these inputs."""
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            values = self._session.run(self.outputs, inputs)
        except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
            shapes = ", ".join(f"'{name}' of {value.shape}" for name, value in inputs.items())
            raise InputError(f"the model cannot run on {shapes} ({str(error).splitlines()[0]})") from error
        return dict(zip(self.outputs, values, strict=True))


def runs_on_single_images_only(model: onnx.ModelProto) -> bool:
    """Return whether a graph with an open batch fails on two images and runs on one, as with a Reshape to (1, -1)."""
    graph = OrtGraph(model)
    if graph.fixed_batch:
        return False
    sizes = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    noise = np.random.default_rng(0).normal(size=(2, *sizes)).astype(np.float32)
    try:
        graph.run({graph.inputs[0]: noise})
    except InputError:
        try:
            graph.run({graph.inputs[0]: noise[:1]})
        except InputError:
            return False
        return True
    return False


def require_separate_images(
    graph: OrtGraph, images: npt.NDArray[np.float32], outputs: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Raise InputError if an output of the first image changes when the other images of a batch do.

    outputs: of the images. A network that draws random numbers is refused, too.
    """
    (name,) = graph.inputs
    if _differing(graph.run({name: images}), outputs, slice(None)):
        raise InputError("the model returns other values each time that it runs; export it in evaluation mode, without "
                         "random numbers")  # fmt: skip
    others = np.concatenate([images[:1], 1 - 2 * images[1:]])
    of_images = {name: array for name, array in outputs.items() if array.shape[:1] == images.shape[:1]}
    if len(images) > 1 and (mixed := _differing(graph.run({name: others}), of_images, slice(1))):
        raise InputError(f"the values of '{mixed}' for an image change with the other images of its batch; export the "
                         "model with batch 1, or so that it computes each image alone")  # fmt: skip


def _differing(
    values: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]], rows: slice
) -> str | None:
    """Return the name of the first output in which some rows differ by more than rounding."""
    for name, other in expected.items():
        array = values[name]
        if not np.issubdtype(array.dtype, np.number) or array.shape != other.shape or not array.shape:
            continue
        scale = float(np.abs(other[rows]).max(initial=0))
        if not np.allclose(array[rows], other[rows], rtol=ROUNDING, atol=ROUNDING * scale, equal_nan=True):
            return name
    return None


def batches(images: EvalSet, fixed: int | None, single: bool = False) -> Iterator[npt.NDArray[np.float32]]:
    """Yield normalised batches of `fixed` or BATCH images; the first images fill up the last batch of a fixed size.

    single: yield each image alone, or for a fixed size as many times.
    """
    size = 1 if single else fixed or BATCH
    for start in range(0, len(images), size):
        indices = np.arange(start, start + size if fixed else min(start + size, len(images)))
        repeated = np.repeat(indices, fixed or 1) if single else indices
        yield images.preprocessing.normalize(images.pixels(repeated % len(images)))


def mixes_images(model: onnx.ModelProto, tensors: list[str], images: EvalSet) -> bool:
    """Return whether the first axis of one of the tensors is not the batch, as with tokens or windows.

    Then images have to run alone, so that all values of such a tensor are of one image.
    """
    graph = OrtGraph(with_outputs(model, tensors))
    _, *shape = images.preprocessing.normalize(images.pixels(np.arange(0))).shape
    batch = np.zeros((graph.fixed_batch or 2, *shape), np.float32)
    values = graph.run({graph.inputs[0]: batch})
    return any(values[name].shape[:1] != batch.shape[:1] for name in tensors if name in values)


def of_images(values: npt.NDArray[Any], batch: int, count: int) -> npt.NDArray[Any]:
    """Return the values of the first `count` images of a batch; all of them if the first axis is not the batch."""
    return values[:count] if values.shape[:1] == (batch,) else values


def logits(model: onnx.ModelProto, images: EvalSet, exact: bool = True) -> npt.NDArray[np.float32]:
    """Return the model's first output (N, classes) for all images."""
    graph = OrtGraph(model, exact)
    parts = [graph.run({graph.inputs[0]: batch})[graph.outputs[0]]
             for batch in batches(images, graph.fixed_batch)]  # fmt: skip
    return np.concatenate(parts)[: len(images)]


def visit_tensors(
    model: onnx.ModelProto,
    tensors: list[str],
    images: EvalSet,
    visit: Callable[[str, npt.NDArray[np.float32], range], None],
    done: Callable[[int], None],
) -> None:
    """Call `visit(tensor, values, indices of the images)` for each tensor and batch; each image counts once.

    The values' first axis is the batch, or there is only one image. done: called after each batch with the number of
    images so far. One batch is in memory at a time.
    """
    single = mixes_images(model, tensors, images)
    graph = OrtGraph(with_outputs(model, tensors))
    start = 0
    for batch in batches(images, graph.fixed_batch, single):
        count = 1 if single else min(len(batch), len(images) - start)  # without the images that fill up a fixed batch
        _visit_batch(graph, tensors, batch, range(start, start + count), visit)
        start += count
        done(start)


def _visit_batch(
    graph: OrtGraph,
    tensors: list[str],
    batch: npt.NDArray[np.float32],
    indices: range,
    visit: Callable[[str, npt.NDArray[np.float32], range], None],
) -> None:
    """Run a batch and visit its tensors; their memory is released on return."""
    values = {graph.inputs[0]: batch, **graph.run({graph.inputs[0]: batch})}
    for name in tensors:
        visit(name, of_images(values[name], len(batch), len(indices)), indices)
