from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.pipeline import measurements as module
from compress.pipeline.images import RunImages
from compress.pipeline.steps import Steps
from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.clock import Timing
from runtimes.files import sha256_file
from runtimes.target import Target

TIMING = Timing(0, 2, 2, sessions=1)
TARGET = Target("bench", runtime="fake")  # has a chosen latency and chosen logits


@pytest.fixture
def artifact(tmp_path: Path, make_images: Callable[[Steps], RunImages], new_steps: Callable[[], Steps]) -> Artifact:
    images = make_images(new_steps())
    path = tmp_path / "model.fake"
    path.write_text('{"logits": [[0.0, 1.0, 0.0]], "latency_ms": 0.1}')
    return Artifact(path, Manifest(
        sha256_file(path), path.stat().st_size, "fake", "float32", "images", (None, 3, 32, 32), "logits",
        images.preprocessing, images.data.classes,
    ))  # fmt: skip


def test_a_target_is_measured_once_on_the_test_split(
    artifact: Artifact, new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> None:
    steps = new_steps()
    images = make_images(steps).of("test")
    first = module.measure_target(steps, [artifact, artifact], TARGET, images, TIMING)
    assert [measurement.predicted for measurement in first] == [(1,) * len(images.load())] * 2
    again = new_steps()
    assert module.measure_target(again, [artifact, artifact], TARGET, make_images(again).of("test"), TIMING) == first


def test_other_cores_are_measured_anew(
    artifact: Artifact, new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not hasattr(environment.os, "sched_getaffinity"):
        pytest.skip("this system has no CPU affinity")
    steps = new_steps()
    folders = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr(environment.os, "sched_getaffinity", lambda process, cores=cores: cores)
        module.measure_target(steps, [artifact], TARGET, make_images(steps).of("test"), TIMING)
        folders.append(steps.folders["measure-bench"])
    assert folders[0] != folders[1]


def test_metrics_on_val_are_those_of_the_predictions(
    artifact: Artifact, new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> None:
    steps = new_steps()
    images = make_images(steps).of("val")
    labels = images.load().labels
    assert labels is not None
    right = np.asarray(labels) == 1
    found = module.val_metrics(steps, artifact, TARGET, images)
    assert found["top1"].value == float(np.mean(right))
    assert found["balanced_accuracy"].value == pytest.approx(1 / len(set(labels.tolist())))
    assert 0 < found["macro_f1"].value < found["top1"].value + 0.5
    assert all(estimate.low < estimate.value < estimate.high for estimate in found.values())


def test_means_of_classes_on_val_need_images_of_every_class(
    artifact: Artifact, new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> None:
    images = make_images(new_steps()).of("val")
    data = images.source.data
    some = replace(data, val=tuple(replace(sample, label=1) for sample in data.val))
    partial = replace(images, source=replace(images.source, data=some))
    assert module.val_metrics(new_steps(), artifact, TARGET, partial).keys() == {"top1"}


def test_without_labels_there_are_no_metrics_on_val(
    artifact: Artifact, new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> None:
    images = make_images(new_steps()).of("val")
    data = images.source.data
    unknown = replace(data, val=tuple(replace(sample, label=None) for sample in data.val))
    without = replace(images, source=replace(images.source, data=unknown))
    assert module.val_metrics(new_steps(), artifact, TARGET, without) == {}
