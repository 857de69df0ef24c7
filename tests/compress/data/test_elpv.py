"""ELPV: the published split, its strata, and errors."""

from __future__ import annotations

import importlib.util
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from pydantic import ValidationError

from compress.data import elpv
from compress.images.samples import Data
from runtimes.errors import InputError, UnavailableError


@pytest.fixture(scope="module")
def data() -> Data:
    return elpv.load(elpv.Config())


@pytest.fixture(scope="module")
def strata() -> dict[str, tuple[str, str]]:
    """Return each image's (probability, cell type), from the package's table."""
    package = importlib.util.find_spec("elpv_dataset")
    assert package is not None
    assert package.submodule_search_locations
    table = Path(package.submodule_search_locations[0]) / "data" / "labels.csv"
    rows = [line.split() for line in table.read_text().splitlines()]
    return {name: (probability, cell) for name, probability, cell in rows}


def test_every_image_is_in_exactly_one_split(data: Data, strata: dict[str, tuple[str, str]]) -> None:
    names = [sample.name for split in (data.train, data.val, data.test) for sample in split]
    assert len(names) == 2624
    assert set(names) == set(strata)
    assert data.calibration == ()


def test_the_files_exist(data: Data) -> None:
    assert all(sample.source.is_file() for sample in data.val)  # type: ignore[union-attr]


def test_a_cell_is_defective_above_one_half(data: Data, strata: dict[str, tuple[str, str]]) -> None:
    samples = (*data.train, *data.val, *data.test)
    assert data.classes == ("functional", "defective")
    assert all(sample.label == (float(strata[sample.name][0]) > 0.5) for sample in samples)
    assert Counter(sample.label for sample in samples) == {0: 1803, 1: 821}


@pytest.mark.parametrize(("split", "share"), [("test", 0.25), ("val", 0.1), ("train", 0.65)])
def test_each_split_has_its_share_of_each_probability_and_type(
    data: Data, strata: dict[str, tuple[str, str]], split: str, share: float
) -> None:
    totals = Counter(strata.values())
    counts = Counter(strata[sample.name] for sample in data.split(split))
    assert len(totals) == 8
    for stratum, total in totals.items():
        assert abs(counts[stratum] - share * total) <= (0.5 if split != "train" else 1)


def test_the_split_has_the_published_size(data: Data) -> None:
    assert abs(len(data.test) - 656) <= 4
    assert len(data.train) + len(data.val) + len(data.test) == 2624


def test_the_split_depends_only_on_the_seed(data: Data) -> None:
    assert elpv.load(elpv.Config()) == data
    assert elpv.load(elpv.Config(seed=1)).test != data.test


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as caught:
        elpv.load(elpv.Config())
    assert str(caught.value) == "data: elpv needs the package elpv-dataset: pip install elpv-dataset"


@pytest.mark.parametrize("line", ["images/a.png 1.0", "images/a.png high mono", "a b c d"])
def test_a_damaged_table_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text(f"images/0.png 0.0 mono\n{line}\n")
    package = ModuleSpec("elpv_dataset", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(InputError, match="must hold 'path probability type' per line"):
        elpv.load(elpv.Config())


@pytest.mark.parametrize("wrong", [{"val": 0}, {"test": 0.5}, {"seed": -1}, {"shares": 0.1}])
def test_settings_are_bounded(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        elpv.Config(**wrong)  # type: ignore[arg-type]
