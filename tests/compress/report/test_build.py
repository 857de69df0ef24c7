"""Building a report from measurements with chosen latencies and predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_report import EPOCHS, GATE, IMAGES, PLAN, UNMEASURED, measurement, outputs

from compress.pruning.plans import PruningPlan
from compress.report.build import FLIPS_SHOWN, build
from compress.report.report import Report
from compress.verdict.statistics import Estimate


@pytest.mark.parametrize(
    ("wrong", "latency_ms", "size_bytes", "verdict"),
    [
        (40, 1.0, 2_000_000, "pass"),
        (80, 1.0, 2_000_000, "regression"),  # accuracy
        (40, 2.0, 2_000_000, "regression"),  # latency
        (40, 1.0, 5_000_000, "regression"),  # size
        (44, 1.0, 2_000_000, "inconclusive"),  # a drop of 1.0 on 400 images is not known to be at most 1.0
    ],
)
def test_the_gate_judges_each_limit(
    tmp_path: Path, wrong: int, latency_ms: float, size_bytes: int, verdict: str
) -> None:
    report = build(outputs(tmp_path, measurement("int8", wrong, latency_ms, size_bytes), GATE))
    assert report.verdict == verdict
    assert [row.verdict for row in report.rows] == [None, verdict]


def test_a_row_compares_with_the_baseline_on_the_same_target(tmp_path: Path) -> None:
    phone = (measurement("float32", 40, 3.0, 8, "phone"), measurement("int8", 60, 1.0, 2, "phone"))
    report = build(outputs(tmp_path, measurement("int8", 44, 1.0, 2_000_000), others=phone))
    assert report.targets == ("board", "phone")
    for target, drop, speedup in (("board", 1.0, 2.0), ("phone", 5.0, 3.0)):
        baseline, int8 = report.rows_of(target)
        assert (baseline.top1_drop_pp, baseline.agreement, baseline.speedup_p50) == (None, None, None)
        assert int8.top1_drop_pp is not None
        assert int8.speedup_p50 is not None
        assert int8.top1_drop_pp.value == pytest.approx(drop)
        assert int8.speedup_p50.value == pytest.approx(speedup, rel=0.05)
        assert int8.speedup_p50.low <= int8.speedup_p50.value <= int8.speedup_p50.high


def test_a_class_that_is_lost_is_a_regression_and_named(tmp_path: Path) -> None:
    """Class b is 8 of 400 images, all lost: 2 points of top-1 on a limit of 4."""
    made = outputs(tmp_path, measurement("int8", 0, 1.0, 2_000_000), {"max_drop_pp": 4})
    labels = np.where(np.arange(IMAGES) < 8, 1, 0)
    test = tuple(replace(sample, label=int(label)) for sample, label in zip(made.data.test, labels, strict=True))
    baseline, int8 = made.measurements
    right, blind = tuple(labels.tolist()), (0,) * IMAGES
    report = build(replace(
        made, data=replace(made.data, test=test),
        measurements=[replace(baseline, predicted=right), replace(int8, predicted=blind)],
    ))  # fmt: skip
    row = report.rows[1]
    assert {check.name: check.verdict for check in row.checks} == {"max_drop_pp": "pass", "class_recall": "regression"}
    assert report.verdict == row.verdict == "regression"
    assert row.notes[0].startswith("class 'b' collapsed: 8 of 8 images lost, 0 gained, p = 0.0039")


def test_the_metric_of_the_gate_is_that_of_the_report(tmp_path: Path) -> None:
    gate = {"metric": "macro_f1", "max_drop_pp": 4, "min_recall": {"a": 0.5}}
    made = outputs(tmp_path, measurement("int8", 44, 1.0, 1), gate)
    report = build(replace(made, val_metrics={"board": {"top1": Estimate(0.7, 0.6, 0.8)}}))
    baseline, int8 = report.rows
    assert report.metric == "macro_f1"
    assert [check.name for check in int8.checks] == ["max_drop_pp", "min_recall.a"]
    assert int8.metric_drop_pp == int8.checks[0].estimate != int8.top1_drop_pp
    assert int8.metrics.keys() == {"top1", "balanced_accuracy", "macro_f1"}
    assert (baseline.val_metrics, int8.val_metrics) == ({}, {"top1": 0.7})
    assert (baseline.val_bounds, int8.val_bounds) == ({}, {"top1": (0.6, 0.8)})
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_of_a_single_artifact_the_recall_is_judged(tmp_path: Path) -> None:
    made = outputs(tmp_path, measurement("int8", 44, 1.0, 1), {"min_recall": {"a": 0.5}})
    report = build(replace(made, measurements=made.measurements[:1]))
    assert [(row.verdict, [check.name for check in row.checks]) for row in report.rows] == [
        ("pass", ["min_recall.a"])
    ]  # fmt: skip
    assert report.verdict == "pass"


def test_only_the_last_artifact_of_a_target_is_judged(tmp_path: Path) -> None:
    bad, good = measurement("float16", 80, 2.0, 4_000_000), measurement("int8", 40, 1.0, 2_000_000)
    report = build(outputs(tmp_path, bad, GATE, others=(good,)))
    assert [(row.precision, row.verdict) for row in report.rows] == [
        ("float32", None), ("float16", None), ("int8", "pass")
    ]  # fmt: skip
    assert report.verdict == "pass"


def test_without_a_gate_there_is_no_verdict(tmp_path: Path) -> None:
    report = build(outputs(tmp_path, measurement("int8", 40, 1.0, 1)))
    assert (report.verdict, report.confidence) == (None, 0.95)
    assert build(outputs(tmp_path, measurement("int8", 40, 1.0, 1), {**GATE, "confidence": 0.9})).confidence == 0.9


@pytest.mark.parametrize(("wrong", "verdict"), [(40, "pass"), (48, "inconclusive"), (80, "regression")])
def test_without_labels_agreement_is_judged(tmp_path: Path, wrong: int, verdict: str) -> None:
    gate = {"min_agreement": 0.97}
    report = build(outputs(tmp_path, measurement("int8", wrong, 1.0, 1), gate, labelled=False))
    baseline, int8 = report.rows
    assert report.verdict == verdict
    assert (baseline.top1, int8.top1, int8.top1_drop_pp) == (None, None, None)
    assert int8.agreement is not None
    assert int8.agreement.value == pytest.approx(1 - (wrong - 40) / 400)
    assert report.accuracy_steps == {}
    assert report.flips["board"].counts["changed"] == wrong - 40


def test_steps_are_the_networks_and_then_the_files(tmp_path: Path) -> None:
    steps = build(outputs(tmp_path, measurement("int8", 44, 1.0, 1))).accuracy_steps["board"]
    assert [step.name for step in steps] == ["0-train", "1-prune", "baseline in ort", "int8 in ort"]
    assert [step.top1 for step in steps] == pytest.approx([0.9, 0.89, 0.9, 0.89])


def test_flips_count_all_images_and_show_the_first(tmp_path: Path) -> None:
    flips = build(outputs(tmp_path, measurement("int8", 80, 1.0, 1))).flips["board"]
    assert flips.counts == {"lost": 40, "gained": 0, "both wrong": 0, "changed": 0}
    assert len(flips.shown) == FLIPS_SHOWN
    assert (flips.shown[0].index, flips.shown[0].name) == (40, "40.png")


def test_the_other_outputs_are_taken_over(tmp_path: Path) -> None:
    report = build(outputs(tmp_path, measurement("int8", 44, 1.0, 1)))
    assert report.training == {"0-train": EPOCHS}
    assert report.pruning == {"1-prune": (PruningPlan.from_json(PLAN),)}
    assert report.unmeasured == (UNMEASURED,)
    assert report.channels == {"stem": (16, 8)}
    assert report.durations_s == {"0-train": 12.5}
    assert [artifact.file for artifact in report.artifacts] == ["model-float32.onnx"]
    assert report.data.images_per_class == {
        "train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 1}, "test": {"a": 200, "b": 200}
    }  # fmt: skip
    assert [image.name for image in report.data.set_aside] == ["bad.png"]


def test_images_without_labels_are_counted_apart(tmp_path: Path) -> None:
    data = build(outputs(tmp_path, measurement("int8", 44, 1.0, 1), labelled=False)).data
    assert data.images_per_class["test"] == {"a": 0, "b": 0, "": 400}
