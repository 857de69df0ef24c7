from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from consoles import RecordingConsole

from compress.images.samples import Data
from compress.pipeline.identity import identity
from compress.pipeline.images import LoadedData, RunImages
from compress.pipeline.steps import Steps
from runtimes import evalset
from runtimes import images as decoding
from runtimes.preprocessing import Preprocessing


@pytest.fixture
def run_images(tmp_path: Path, stripes: Data, small: Preprocessing) -> Callable[..., RunImages]:
    def make(**changes: object) -> RunImages:
        steps = Steps(tmp_path, RecordingConsole(), lambda stage, epoch, values: None)
        return replace(RunImages(steps, LoadedData.of(stripes), small, 0, 8), **changes)

    return make


def test_images_are_those_of_the_split_resized_and_cropped(
    run_images: Callable[..., RunImages], stripes: Data, small: Preprocessing
) -> None:
    test = run_images().of("test").load()
    assert test.names == tuple(sample.name for sample in stripes.test)
    assert test.labels is not None
    assert test.labels.tolist() == [sample.label for sample in stripes.test]
    expected = decoding.resize_and_crop(decoding.decode(stripes.test[0].source), small)
    np.testing.assert_array_equal(test.images[0], expected)


def test_at_most_so_many_images_are_spread_over_the_split(
    run_images: Callable[..., RunImages], stripes: Data, tmp_path: Path
) -> None:
    train = run_images().of("train")
    some = train.at_most(3).load()
    assert some.names == tuple(stripes.train[index].name for index in evalset.spread(len(stripes.train), 3))
    assert [path.name[:14] for path in tmp_path.glob("steps/*")] == ["images-train-3"]  # the others are not prepared
    assert train.at_most(10_000) == train


def test_calibration_draws_from_train_by_the_seed(run_images: Callable[..., RunImages], stripes: Data) -> None:
    drawn = run_images().calibration().load().names
    assert len(drawn) == 8
    assert set(drawn) <= {sample.name for sample in stripes.train}
    assert run_images().calibration().load().names == drawn
    assert run_images(seed=1).calibration().load().names != drawn


def test_the_identity_follows_all_that_decides_the_pixels(
    run_images: Callable[..., RunImages], small: Preprocessing
) -> None:
    before = identity(run_images().calibration())
    assert identity(run_images().calibration()) == before
    changes = [
        {"preprocessing": replace(small, interpolation="bicubic")}, {"seed": 1}, {"calibration_count": 4},
        {"source": LoadedData(run_images().data, "another fingerprint")},
    ]  # fmt: skip
    others = [run_images(**change).calibration() for change in changes]
    others += [run_images().of("train"), run_images().of("train").at_most(8)]
    assert all(identity(other) != before for other in others)


def test_the_number_of_calibration_images_is_no_part_of_the_training_images(
    run_images: Callable[..., RunImages],
) -> None:
    assert identity(run_images(calibration_count=4).of("train")) == identity(run_images().of("train"))


def test_images_are_prepared_once(run_images: Callable[..., RunImages], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_images().of("val").load()
    monkeypatch.setattr(decoding, "decode", lambda source: 1 / 0)
    again = run_images().of("val").load()
    np.testing.assert_array_equal(again.images, first.images)
