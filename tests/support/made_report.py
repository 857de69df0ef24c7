"""Reports of measurements with chosen latencies and predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.images.samples import Data, Rejected, Sample
from compress.pruning.plans import PruningPlan
from compress.report import publish as publishing
from compress.report.build import RunOutputs
from compress.report.report import DataDescription, EpochRecord, Report, Row, UnmeasuredFile
from compress.verdict.gate import Gate
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.environment import Environment
from runtimes.files import sha256_file
from runtimes.lineage import read_lineage
from runtimes.measure import Measurement
from runtimes.metrics import accuracy
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

IMAGES = 400
PARITY = {"images": 3, "agreement": 1.0, "max_logit_difference": 0.1, "sqnr_db": None}
NODE = {"name": "stem", "layer": "stem", "op": "QLinearConv", "kind": "integer", "time_ms": 0.25}
RUNS = {"int8": [NODE], "float32": [{**NODE, "op": "Conv", "kind": "float", "time_ms": 0.5}]}
QUANTIZE = {
    "step": "quantize", "from": "2" * 64, "engine": "compress", "calibration_images": 3, "calibration_sha256": "3" * 64,
    "held_out_images": 3,
    "calibration": {"method": "min-max"},
    "attempts": [{"step": "nearest rounding", "sqnr_db": 20.1, "agreement": 0.9, "kept": True}],
    "layers": [{"name": "stem", "op": "depthwise Conv", "outputs": 8, "precision": "int8", "weight_bits": 7,
                "limited_channels": 3, "sqnr_db": 31.5}],
}  # fmt: skip
LABELS = np.arange(IMAGES) % 2


def measurement(precision: str, wrong: int, latency_ms: float, size_bytes: int, target: str = "board") -> Measurement:
    """Return a measurement whose first `wrong` images are misclassified."""
    predicted = LABELS.copy()
    predicted[:wrong] = 1 - predicted[:wrong]
    logits = np.eye(2, dtype=np.float32)[predicted]
    runs = latency_ms * np.random.default_rng(0).uniform(0.95, 1.05, (30, 10))
    return Measurement(
        artifact=f"model-{precision}.onnx", sha256="0" * 64, precision=precision, size_bytes=size_bytes,
        target=Target(target), timing=Timing(), latency_ms_p50=float(np.median(runs)), latency_ms_p90=latency_ms * 1.1,
        latency_ms_p99=None, latency_ms=tuple(map(tuple, runs.tolist())), throughput_images_per_s=1000 / latency_ms,
        resident_bytes=1, evalset_sha256="1" * 64, accuracy=accuracy(logits, LABELS),
        predicted=tuple(predicted.tolist()),
        environment={"cpu": "test"},
    )  # fmt: skip


def outputs(
    folder: Path,
    int8: Measurement,
    gate: dict[str, Any] | None = None,
    classes: tuple[str, ...] = ("a", "b"),
    others: tuple[Measurement, ...] = (),
    labelled: bool = True,
) -> RunOutputs:
    """Return the outputs of a run with a baseline, `int8` and measurements on other targets; files go to `folder`."""
    test = tuple(Sample(f"{index}.png", b"", int(label) if labelled else None) for index, label in enumerate(LABELS))
    data = Data(classes, test[:2], test[:2], test, rejected=(Rejected("bad.png", "train", "bad.png: not an image"),))
    model = folder / "model-float32.onnx"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"model")
    manifest = Manifest(
        sha256_file(model), 5, "onnx", "float32", "images", (None, 3, 8, 8), "logits", Preprocessing(8, 8), ("a", "b"),
        lineage=read_lineage([QUANTIZE, {"step": "verify", "parity_with_float32": PARITY, "runs": RUNS}]),
    )  # fmt: skip
    artifact = Artifact(model, manifest)
    artifact.save_manifest()
    baseline = measurement("float32", 40, 2.0, 8_000_000)
    measurements = [baseline, int8, *others]
    if not labelled:
        measurements = [replace(measured, accuracy=None) for measured in measurements]
    images = evalset.write(
        folder / "images", np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), np.uint8), LABELS,
        tuple(sample.name for sample in test), data.classes, Preprocessing(8, 8),
    )  # fmt: skip
    return RunOutputs(
        recipe="test", gate=None if gate is None else Gate(**gate), data=data, images=images, artifacts=[artifact],
        measurements=measurements, environment=ENVIRONMENT, durations_s={"0-train": 12.5}, unmeasured=[UNMEASURED],
        training={"0-train": EPOCHS}, pruning={"1-prune": [PruningPlan.from_json(PLAN)]},
        predictions={"0-train": baseline.predicted, "1-prune": int8.predicted}, channels={"stem": (16, 8)},
    )  # fmt: skip


def publish(folder: Path, int8: Measurement, gate: dict[str, Any] | None, **settings: Any) -> Report:
    """Publish a report of `outputs` in `folder`/run."""
    return publishing.publish(outputs(folder, int8, gate, **settings), folder / "run")


def one_row(target: str, val_top1: float, latency_ms: float, size_bytes: int) -> Report:
    """Return a report of one artifact on one target."""
    measured = replace(measurement("int8", 200, latency_ms, size_bytes, target), latency_ms_p50=latency_ms)
    row = Row(
        target=target, artifact=measured.artifact, precision="int8", images=IMAGES, top1=0.5, metrics={"top1": 0.5},
        val_metrics={"top1": val_top1}, top1_drop_pp=None, metric_drop_pp=None, agreement=None, size_bytes=size_bytes,
        latency_ms_p50=latency_ms, latency_ms_p90=None, latency_ms_p99=None, speedup_p50=None, checks=(), verdict=None,
    )  # fmt: skip
    return Report(
        recipe="test", verdict=None, confidence=0.95, rows=(row,), data=DataDescription(("a", "b"), {}, "", ()),
        training={}, pruning={}, unmeasured=(), accuracy_steps={}, flips={}, channels={}, artifacts=(),
        measurements=(measured,), environment=ENVIRONMENT, durations_s={},
    )  # fmt: skip


EPOCHS = tuple(EpochRecord(epoch, 0.1, 1 / epoch, 1.1 / epoch, 1 - 0.2 / epoch) for epoch in (1, 2, 3))
ENVIRONMENT = Environment("test CPU", "x86-vnni", 2, 8.0, "Linux", "3.11.7", {"numpy": "2.4.6"})
PLAN = {
    "cuts": [
        {"group": "features.1", "layers": ["features.1"], "before": 32, "kept": list(range(24)), "lost": 0.125,
         "saved": 0.0625},
        {"group": "features.2", "layers": ["features.2"], "before": 8, "kept": list(range(8)), "lost": 0, "saved": 0},
    ],
    "unit": "ms", "cost_before": 1.0, "asked": 0.6, "predicted": 0.58, "measured": 0.61,
}  # fmt: skip
UNMEASURED = UnmeasuredFile(
    Target("orin"), "model-int8-tensorrt.onnx", "int8", 1_250_000, "no GPU is here", "the board builds it",
    None, "Jetson Orin Nano", 0.81, "estimate, not measured",
)  # fmt: skip
GATE = {"max_drop_pp": 1.0, "min_speedup_p50": 1.3, "max_size_ratio": 0.5}
