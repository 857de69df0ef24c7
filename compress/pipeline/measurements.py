"""Measurements of a run's artifacts on a target of this machine."""

from __future__ import annotations

import numpy as np

from compress.pipeline.images import SplitImages
from compress.pipeline.steps import Step, Steps
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.clock import Timing
from runtimes.files import read_json, write_json
from runtimes.measure import Measurement, evaluate, measure
from runtimes.target import Target

MEASUREMENTS, TOP1 = "measurements.json", "top1.json"


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


def val_top1(steps: Steps, artifact: Artifact, target: Target, images: SplitImages) -> float:
    """Return an artifact's top-1 accuracy on val, by which sweeps compare settings: the test split is not for that."""
    folder = steps.run(evaluate_val, f"val-{target.name}", artifact=artifact, target=target, images=images)
    return float(read_json(folder / TOP1))


def evaluate_val(step: Step, artifact: Artifact, target: Target, images: SplitImages) -> None:
    """Write an artifact's top-1 accuracy on labelled images."""
    labelled = images.load()
    correct = evaluate(artifact, target, labelled).argmax(1) == labelled.labels
    write_json(step.folder / TOP1, float(np.mean(correct)))
