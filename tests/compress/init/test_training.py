"""The side of the input and the stages that suit the images."""

from __future__ import annotations

import pytest

from compress.init.training import prunes, side, stages


@pytest.mark.parametrize(
    ("typical", "device", "expected"),
    [(16, "cpu", 32), (28, "cpu", 64), (32, "cpu", 64), (64, "cpu", 64), (100, "cpu", 96), (128, "cpu", 128),
     (3000, "cpu", 160), (3000, "cuda", 224), (200, "cuda", 192)],
)  # fmt: skip
def test_the_side_is_near_that_of_the_images(typical: int, device: str, expected: int) -> None:
    assert side(typical, device, 32) == expected


def test_the_side_is_at_least_that_of_the_network() -> None:
    assert side(40, "cpu", 96) == 96


@pytest.mark.parametrize(("images", "smallest", "expected"), [(1400, 60, True), (1400, 20, False), (400, 100, False)])
def test_a_network_is_pruned_where_the_images_are_enough(images: int, smallest: int, expected: bool) -> None:
    assert prunes(images, smallest) is expected


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize("images", [3, 40, 150, 400, 1400, 5000, 100_000])
def test_there_are_some_hundred_steps_for_few_images_and_few_epochs_for_many(images: int, is_trained: bool) -> None:
    (train,) = stages(images, is_trained, False)
    steps = train["epochs"] * max(1, images // train["batch_size"])
    assert steps >= (200 if images >= 40 else 60)
    assert train["epochs"] >= (5 if is_trained else 20)
    assert train["warmup_epochs"] < train["epochs"]
    if images <= 1400:
        assert steps <= 2500


def test_random_weights_get_more_steps_and_a_larger_learning_rate() -> None:
    (trained,), (random,) = (stages(400, is_trained, False) for is_trained in (True, False))
    assert random["epochs"] > 2 * trained["epochs"]
    assert random["lr"] > trained["lr"]


def test_a_pruned_network_is_distilled_longer_than_it_was_trained() -> None:
    train, prune, distill = stages(1400, True, True)
    assert [train["stage"], prune["stage"], distill["stage"]] == ["train", "prune", "distill"]
    assert distill["epochs"] > train["epochs"]
    assert distill["teacher"]["network"] == "baseline"


@pytest.mark.parametrize(
    ("images", "is_trained", "frozen"), [(60, True, True), (200, True, True), (400, True, False), (60, False, False)]
)
def test_batchnorms_with_trained_statistics_are_frozen_for_small_batches(
    images: int, is_trained: bool, frozen: bool
) -> None:
    (train,) = stages(images, is_trained, False, batchnorms=("*bn*",))
    assert (train.get("freeze") == ["*bn*"]) is frozen
    assert "freeze" not in stages(images, is_trained, False)[0]
