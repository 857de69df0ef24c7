"""Measurements of a run's artifacts on a target of this machine."""

from __future__ import annotations

from typing import get_args

from compress.pipeline.images import SplitImages
from compress.pipeline.steps import Step, Steps
from compress.verdict import metrics
from compress.verdict.metrics import Metric
from compress.verdict.statistics import Estimate
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.files import read_json, write_json
from runtimes.measure import Measurement, evaluate, measure
from runtimes.target import Target

MEASUREMENTS, PREDICTED = "measurements.json", "predicted.json"
CONFIDENCE = 0.95  # of each bound of the metrics on val


def measure_target(
    steps: Steps, artifacts: list[Artifact], target: Target, images: SplitImages, timing: Timing
) -> list[Measurement]:
    """Measure artifacts on a target, interleaved, on the test split."""
    cores = environment.describe().cores  # latency depends on the cores that this process may use
    folder = steps.run(
        measure_artifacts, f"measure-{target.name}", artifacts=artifacts, target=target, images=images, timing=timing,
        cores=cores,
    )  # fmt: skip
    return [Measurement.from_json(fields) for fields in read_json(folder / MEASUREMENTS)]


def measure_artifacts(
    step: Step, artifacts: list[Artifact], target: Target, images: SplitImages, timing: Timing, cores: int
) -> None:
    """Write the measurements of artifacts on a target. cores: that this process may use."""
    step.console.say(f"measure on target '{target.name}'")
    measurements = measure(artifacts, target, images.load(), timing, step.console)
    write_json(step.folder / MEASUREMENTS, [measurement.to_json() for measurement in measurements])


def val_metrics(steps: Steps, artifact: Artifact, target: Target, images: SplitImages) -> dict[Metric, Estimate]:
    """Return an artifact's metrics on val, by which sweeps compare settings: the test split is not for that.

    images: the val split; without labels for all of them there are no metrics, without images of all classes only top1.
    """
    data = images.source.data
    samples = data.val
    labels = [sample.label for sample in samples if sample.label is not None]
    if len(labels) < len(samples):
        return {}
    folder = steps.run(predict_val, f"val-{target.name}", artifact=artifact, target=target, images=images)
    predicted = read_json(folder / PREDICTED)
    known: tuple[Metric, ...] = get_args(Metric) if len({*labels}) == len(data.classes) else ("top1",)
    return {name: metrics.with_bounds(name, predicted, labels, CONFIDENCE) for name in known}


def predict_val(step: Step, artifact: Artifact, target: Target, images: SplitImages) -> None:
    """Write the class that an artifact predicts for each image."""
    write_json(step.folder / PREDICTED, evaluate(artifact, target, images.load()).argmax(1).tolist())
