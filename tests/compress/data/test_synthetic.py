"""Synthetic stripes: splits, names, sizes, randomness."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from compress.data import synthetic
from compress.images.samples import Data
from runtimes import images

CONFIG = synthetic.Config(classes=4, images_per_class=20, size=16)


@pytest.fixture(scope="module")
def data() -> Data:
    return synthetic.load(CONFIG)


@pytest.mark.parametrize(("split", "per_class"), [("train", 12), ("val", 3), ("test", 5)])
def test_each_class_is_split_by_the_shares(data: Data, split: str, per_class: int) -> None:
    assert Counter(sample.label for sample in data.split(split)) == dict.fromkeys(range(4), per_class)


def test_names_are_unique_and_contain_the_class(data: Data) -> None:
    samples = (*data.train, *data.val, *data.test)
    assert len({sample.name for sample in samples}) == 80
    assert all(sample.name.startswith(f"{data.classes[sample.label or 0]}/") for sample in samples)


def test_images_have_the_configured_size(data: Data) -> None:
    assert {images.decode(sample.source).size for sample in data.train} == {(16, 16)}


def test_images_depend_only_on_the_seed(data: Data) -> None:
    assert synthetic.load(CONFIG) == data
    other = synthetic.load(CONFIG.model_copy(update={"seed": 1}))
    assert not {sample.source for sample in other.train} & {sample.source for sample in data.train}


def test_all_images_differ(data: Data) -> None:
    assert len({sample.source for sample in (*data.train, *data.val, *data.test)}) == 80


def test_noise_is_the_deviation_between_neighbouring_pixels() -> None:
    def roughness(noise: float) -> float:
        config = synthetic.Config(images_per_class=3, size=64, noise=noise)
        pixels = np.asarray(images.decode(synthetic.load(config).train[0].source), np.float64)
        return float(np.diff(pixels, 2, axis=0).std())

    assert roughness(0) < roughness(24) < roughness(60)


@pytest.mark.parametrize("classes", [2, 180, 300])
def test_class_names_are_unique_at_any_number(classes: int) -> None:
    data = synthetic.load(synthetic.Config(classes=classes, images_per_class=3, size=8))
    assert len(set(data.classes)) == classes
    assert Counter(sample.label for sample in data.test) == dict.fromkeys(range(classes), 1)


@pytest.mark.parametrize(
    "wrong",
    [{"classes": 1}, {"images_per_class": 2}, {"size": 7}, {"noise": -1}, {"noise": float("nan")}, {"sizes": 8}],
)
def test_settings_are_bounded(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        synthetic.Config(**wrong)  # type: ignore[arg-type]
