"""The quantizers that `bench_quantize.py` compares: ONNX Runtime's and NNCF's, and ours.

All get the same float32 file and the same calibration images, in their own way and with min-max ranges, and make Q/DQ
files for plain ONNX Runtime sessions; only "+ x64quantprecision" sets a session key. "7-bit pointwise" gives 7 bits to
the weights of all layers that are not depthwise, the first and the classifier among them, because those saturate too.
OpenVINO, where it is installed, runs NNCF's quantization of the same network in its own runtime, one thread, the batch
fixed at 1.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from quantize_networks import FOLDER, Subject

from compress.process.console import Terminal
from compress.quantization import nncf_method
from compress.quantization.config import Quantize
from compress.quantization.int8 import make_int8
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import scheme_named
from export.layers import layers_of
from export.scheme import EXACT_KERNELS
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file, write_bytes
from runtimes.session import Session, load
from runtimes.target import Target

OURS, OURS_QAT, OPENVINO = "ours", "ours, after qat", "nncf openvino"
CALIBRATION_BATCH = 8
U8S8: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
U8U8: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
S8S8: dict[str, Any] = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}


@dataclass(frozen=True)
class Made:
    """A quantized file and how long its making took, None for training.

    The session key's row shares the file and seconds of the first.
    """

    who: str
    artifact: Artifact
    duration_s: float | None


def make_all(subject: Subject, target: Target, terminal: Terminal) -> list[Made]:
    """Quantize a network in every way that runs in ONNX Runtime; target: where ours measures latency."""
    folder = FOLDER / subject.name / "int8"
    ranges = folder / "ranges.json"  # ONNX Runtime's, calibrated by the first and shared by the others
    ranges.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    pointwise = {"TensorQuantOverrides": _seven_bits(onnx.load(subject.float32.path))}
    ways: dict[str, Callable[[Path], Artifact]] = {
        "ort u8s8": lambda path: _ort(subject, path, ranges, U8S8),
        "ort u8s8 reduce_range": lambda path: _ort(subject, path, ranges, {**U8S8, "reduce_range": True}),
        "ort u8s8 7-bit pointwise": lambda path: _ort(subject, path, ranges, U8S8, pointwise),
        "ort u8u8": lambda path: _ort(subject, path, ranges, U8U8),
        "ort s8s8": lambda path: _ort(subject, path, ranges, S8S8, {"ActivationSymmetric": True}),
        "nncf": lambda path: _nncf(subject, path),
        OURS: lambda path: _ours(subject, path, target, terminal),
    }
    made = []
    for index, (who, way) in enumerate(ways.items()):
        terminal.progress(f"quantize {subject.name}, {who}", index, len(ways))
        start = time.monotonic()
        artifact = way(folder / f"{who.replace(' ', '-')}.onnx")
        made.append(Made(who, artifact, time.monotonic() - start))
    exact = replace(made[0].artifact, manifest=replace(made[0].artifact.manifest, session_options=EXACT_KERNELS))
    made.insert(3, replace(made[0], who="ort u8s8 + x64quantprecision", artifact=exact))
    if subject.trained is not None:
        made.append(Made(OURS_QAT, subject.trained, None))
    return made


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The calibration images in batches; least and greatest values are the same for any batch size.

    Only those two numbers of each tensor and batch are kept, so memory is no concern. CalibMaxIntermediateOutputs must
    not be set: ONNX Runtime 1.32 then forgets what it has collected instead of merging it.
    """

    def __init__(self, images: EvalSet, input_name: str) -> None:
        self._batches = images.batches(CALIBRATION_BATCH)
        self._input_name = input_name

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._input_name: batch}


def _ort(
    subject: Subject, path: Path, ranges: Path, settings: dict[str, Any], more: dict[str, Any] | None = None
) -> Artifact:
    quantize_static(
        subject.float32.path, path, _Reader(subject.calibration, subject.float32.manifest.input_name),
        quant_format=QuantFormat.QDQ, per_channel=True, calibration_cache_path=ranges,
        extra_options=more or {}, **settings,
    )  # fmt: skip
    return _artifact(subject, path)


def _seven_bits(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Return ONNX Runtime's overrides, by the weights' name, for all layers that are not depthwise."""
    nodes = {node.name: node for node in model.graph.node}
    return {
        nodes[name].input[1]: [{"axis": layer.axis, "reduce_range": True}]
        for name, layer in layers_of(model).items()
        if not layer.depthwise
    }


def _nncf(subject: Subject, path: Path) -> Artifact:
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars there
        quantized = nncf_method.quantize(onnx.load(subject.float32.path), subject.calibration)
    write_bytes(path, quantized.SerializeToString())
    return _artifact(subject, path)


def _ours(subject: Subject, path: Path, target: Target, terminal: Terminal) -> Artifact:
    settings = Quantize(calibration_images=len(subject.calibration))
    request = QuantizationRequest(subject.calibration, scheme_named("auto"), settings, terminal)
    return make_int8(subject.float32, target, request, path)


def _artifact(subject: Subject, path: Path) -> Artifact:
    fields: dict[str, Any] = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size, "precision": "int8"}
    return Artifact(path, replace(subject.float32.manifest, **fields))


def has_openvino() -> bool:
    """Tell whether OpenVINO can be imported."""
    return importlib.util.find_spec("openvino") is not None


@dataclass(frozen=True)
class OpenVino:
    """NNCF's INT8 in OpenVINO. logits: (N, classes) of the judged images; both latencies are (blocks, runs) in ms."""

    logits: npt.NDArray[np.float32]
    latency_ms: npt.NDArray[np.float64]
    float32_latency_ms: npt.NDArray[np.float64]
    duration_s: float


def openvino(subject: Subject, target: Target, timing: Timing, terminal: Terminal) -> OpenVino:
    """Quantize with NNCF for OpenVINO and time it against ONNX Runtime's float32, as `runtimes.measure` does."""
    import nncf
    import openvino as ov

    start = time.monotonic()
    normalize, core = subject.judged.preprocessing.normalize, ov.Core()
    model = core.read_model(subject.float32.path)
    model.reshape([1, *subject.float32.manifest.input_shape[1:]])
    pixels = subject.calibration.images
    images = nncf.Dataset(range(len(pixels)), lambda index: normalize(pixels[index : index + 1]))
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws progress bars there
        quantized = nncf.quantize(model, images, subset_size=len(pixels))
    duration_s = time.monotonic() - start
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": target.threads}
    compiled = core.compile_model(quantized, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})

    def run(given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = compiled(given)[0]
        return logits

    logits = []
    for index, batch in enumerate(subject.judged.batches(1)):
        logits.append(run(batch))
        terminal.progress(f"evaluate {subject.name}, OpenVINO", index + 1, len(subject.judged))
    session: Session = load(subject.float32, target)
    try:
        float32_ms, latency_ms = _interleave([session.run, run], list(subject.judged.head(8).batches(1)), timing)
    finally:
        session.close()
    return OpenVino(np.concatenate(logits), latency_ms, float32_ms, duration_s)


def _interleave(
    runs: list[Callable[[npt.NDArray[np.float32]], Any]], inputs: list[npt.NDArray[np.float32]], timing: Timing
) -> list[npt.NDArray[np.float64]]:
    """Return milliseconds (blocks, runs_per_block) for each; who goes first changes every block."""
    for run in runs:
        for index in range(timing.warmup):
            run(inputs[index % len(inputs)])
    taken = [np.empty((timing.blocks, timing.runs_per_block)) for _ in runs]
    gc.collect()
    gc.disable()
    try:
        for block in range(timing.blocks):
            for turn in range(len(runs)):
                index = (block + turn) % len(runs)
                runs[index](inputs[-1])
                for position in range(timing.runs_per_block):
                    given = inputs[position % len(inputs)]
                    start = time.perf_counter_ns()
                    runs[index](given)
                    taken[index][block, position] = (time.perf_counter_ns() - start) / 1e6
    finally:
        gc.enable()
    return taken
