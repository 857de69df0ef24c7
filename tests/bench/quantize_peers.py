"""Quantization methods compared by `bench_quantize.py`: ONNX Runtime, NNCF, OpenVINO and this package.

All methods get the same float32 file and calibration images, use min-max ranges, and write Q/DQ files for ONNX Runtime
sessions without options; only "+ x64quantprecision" sets a session option. "7-bit pointwise" gives 7 bits to the
weights of all layers that are not depthwise, including the first layer and the classifier, since those saturate too.
OpenVINO, if installed, runs NNCF's quantization of the same network in its own runtime with one thread and batch 1.
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
class QuantizedFile:
    """A quantized file of a method. duration_s: of the quantization, None for a file that was trained."""

    method: str
    artifact: Artifact
    duration_s: float | None


def quantize_all(subject: Subject, target: Target, terminal: Terminal) -> list[QuantizedFile]:
    """Quantize a network by every method that runs in ONNX Runtime. target: for this package's latency measurements.

    The method with a session option shares the file and duration of the first method.
    """
    folder = FOLDER / subject.name / "int8"
    ranges = folder / "ranges.json"  # of ONNX Runtime, written by its first method and read by the others
    ranges.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    pointwise = {"TensorQuantOverrides": _seven_bits(onnx.load(subject.float32.path))}
    methods: dict[str, Callable[[Path], Artifact]] = {
        "ort u8s8": lambda path: _ort(subject, path, ranges, U8S8),
        "ort u8s8 reduce_range": lambda path: _ort(subject, path, ranges, {**U8S8, "reduce_range": True}),
        "ort u8s8 7-bit pointwise": lambda path: _ort(subject, path, ranges, U8S8, pointwise),
        "ort u8u8": lambda path: _ort(subject, path, ranges, U8U8),
        "ort s8s8": lambda path: _ort(subject, path, ranges, S8S8, {"ActivationSymmetric": True}),
        "nncf": lambda path: _nncf(subject, path),
        OURS: lambda path: _ours(subject, path, target, terminal),
    }
    files = []
    for index, (method, quantize) in enumerate(methods.items()):
        terminal.progress(f"quantize {subject.name}, {method}", index, len(methods))
        start = time.monotonic()
        artifact = quantize(folder / f"{method.replace(' ', '-')}.onnx")
        files.append(QuantizedFile(method, artifact, time.monotonic() - start))
    manifest = replace(files[0].artifact.manifest, session_options=EXACT_KERNELS)
    exact = replace(files[0].artifact, manifest=manifest)
    files.insert(3, replace(files[0], method="ort u8s8 + x64quantprecision", artifact=exact))
    if subject.trained is not None:
        files.append(QuantizedFile(OURS_QAT, subject.trained, None))
    return files


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of calibration images; min-max ranges do not depend on the batch size.

    ONNX Runtime keeps two numbers per tensor and batch, so memory is not a problem. CalibMaxIntermediateOutputs must
    not be set: ONNX Runtime 1.32 then discards the collected values instead of merging them.
    """

    def __init__(self, images: EvalSet, input_name: str) -> None:
        self._batches = images.batches(CALIBRATION_BATCH)
        self._input_name = input_name

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._input_name: batch}


def _ort(
    subject: Subject, path: Path, ranges: Path, settings: dict[str, Any], options: dict[str, Any] | None = None
) -> Artifact:
    quantize_static(
        subject.float32.path, path, _Reader(subject.calibration, subject.float32.manifest.input_name),
        quant_format=QuantFormat.QDQ, per_channel=True, calibration_cache_path=ranges,
        extra_options=options or {}, **settings,
    )  # fmt: skip
    return _artifact(subject, path)


def _seven_bits(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Return ONNX Runtime's overrides by name of the weights for all layers that are not depthwise."""
    nodes = {node.name: node for node in model.graph.node}
    return {
        nodes[name].input[1]: [{"axis": layer.axis, "reduce_range": True}]
        for name, layer in layers_of(model).items()
        if not layer.depthwise
    }


def _nncf(subject: Subject, path: Path) -> Artifact:
    with contextlib.redirect_stdout(io.StringIO()):  # hides NNCF's progress bars
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
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


@dataclass(frozen=True)
class OpenVino:
    """Result of OpenVINO. logits: (N, classes) of the evaluation images; both latencies are (blocks, runs) in ms."""

    logits: npt.NDArray[np.float32]
    latency_ms: npt.NDArray[np.float64]
    float32_latency_ms: npt.NDArray[np.float64]
    duration_s: float


def openvino(subject: Subject, target: Target, timing: Timing, terminal: Terminal) -> OpenVino:
    """Quantize with NNCF for OpenVINO and measure it interleaved with float32 in ONNX Runtime."""
    import nncf
    import openvino as ov

    start = time.monotonic()
    normalize, core = subject.judged.preprocessing.normalize, ov.Core()
    model = core.read_model(subject.float32.path)
    model.reshape([1, *subject.float32.manifest.input_shape[1:]])
    pixels = subject.calibration.images
    images = nncf.Dataset(range(len(pixels)), lambda index: normalize(pixels[index : index + 1]))
    with contextlib.redirect_stdout(io.StringIO()):  # hides NNCF's progress bars
        quantized = nncf.quantize(model, images, subset_size=len(pixels))
    duration_s = time.monotonic() - start
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": target.threads}
    compiled = core.compile_model(quantized, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = compiled(batch)[0]
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
    """Return the milliseconds (blocks, runs_per_block) of each function; the order rotates with every block."""
    for run in runs:
        for index in range(timing.warmup):
            run(inputs[index % len(inputs)])
    latencies_ms = [np.empty((timing.blocks, timing.runs_per_block)) for _ in runs]
    gc.collect()
    gc.disable()
    try:
        for block in range(timing.blocks):
            for turn in range(len(runs)):
                index = (block + turn) % len(runs)
                runs[index](inputs[-1])
                for position in range(timing.runs_per_block):
                    batch = inputs[position % len(inputs)]
                    start = time.perf_counter_ns()
                    runs[index](batch)
                    latencies_ms[index][block, position] = (time.perf_counter_ns() - start) / 1e6
    finally:
        gc.enable()
    return latencies_ms
