"""The gate that the test images can decide."""

from __future__ import annotations

import numpy as np
import pytest

from compress.init.limits import Choice, choose
from compress.verdict import accuracy
from compress.verdict.gate import Gate, out_of_reach
from compress.verdict.metrics import Metric


def chosen(*counts: int, metric: Metric = "top1", method: str = "quantize", share: float | None = 0.2) -> Choice:
    labels = np.repeat(np.arange(len(counts)), counts)
    return choose(labels, len(labels), len(counts), metric, method, share)


@pytest.mark.parametrize(
    ("counts", "drop"), [((1000, 1000), 2), ((150, 150), 3), ((80, 80), 5), ((40, 40, 40), 10), ((6, 6, 6), None)]
)
def test_fewer_test_images_decide_larger_drops_only(counts: tuple[int, ...], drop: int | None) -> None:
    assert chosen(*counts).section.get("max_drop_pp") == drop


def test_pruning_changes_more_predictions() -> None:
    assert chosen(200, 200, method="prune").section["max_drop_pp"] > chosen(200, 200).section["max_drop_pp"]


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy"])
@pytest.mark.parametrize("counts", [(6, 6, 6), (40, 40, 40), (60, 30, 10), (8,) * 50, (300, 300)])
def test_every_limit_is_in_reach(counts: tuple[int, ...], metric: Metric) -> None:
    labels, gate = np.repeat(np.arange(len(counts)), counts), Gate(**chosen(*counts, metric=metric).section)
    assert out_of_reach(gate, labels, len(labels), tuple(map(str, range(len(counts))))) == []
    judged = accuracy.judge(gate, accuracy.Predictions(labels, labels, labels, tuple(map(str, range(len(counts))))))
    assert {check.verdict for check in judged.checks} <= {"pass"}


def test_the_least_accuracy_is_above_chance_by_a_margin() -> None:
    assert chosen(40, 40, 40).section["min_accuracy"] == 0.44
    assert chosen(50, 30, 20).section["min_accuracy"] == 0.6
    assert chosen(50, 30, 20, metric="balanced_accuracy").section["min_accuracy"] == 0.44
    assert chosen(*(8,) * 50).section["min_accuracy"] == 0.12


def test_limits_that_the_images_are_too_few_for_are_named_with_a_number_that_is_enough() -> None:
    choice = chosen(2, 2)
    assert choice.section == {}
    better, cost = choice.warnings
    assert better.startswith("4 test images are too few to show that the network is better than chance; ")
    assert cost.startswith("4 test images are too few to show how much accuracy compression costs; ")
    for line, key in ((better, "min_accuracy"), (cost, "max_drop_pp")):
        needed = int(line.partition("about ")[2].split()[0])
        assert f"(of {5 * needed} images in all) would be enough" in line
        assert key in chosen(needed // 2, needed // 2).section
    assert "in all" not in chosen(2, 2, share=None).warnings[0]


def test_many_classes_of_one_test_image_have_no_limit_on_the_drop() -> None:
    choice = chosen(*(1,) * 100)
    assert "max_drop_pp" not in choice.section
    assert chosen(*(8,) * 50).section["max_drop_pp"] == 3


@pytest.mark.parametrize(("images", "limit"), [(2000, 0.95), (100, 0.9), (20, 0.8), (2, None)])
def test_without_labels_the_agreement_is_judged(images: int, limit: float | None) -> None:
    choice = choose(None, images, 3, "top1", "quantize", None)
    assert choice.section.get("min_agreement") == limit
    assert bool(choice.warnings) is (limit is None)
