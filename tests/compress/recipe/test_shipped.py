"""Shipped recipes, sweeps and targets by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.recipe import shipped
from runtimes.errors import InputError

ROOT = Path(__file__).parents[3]
TARGETS = {"desktop-cpu", "jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-thor", "jetson-xavier-nx",
           "raspberry-pi-5", "rtx-sm120", "rtx-sm75", "rtx-sm86", "rtx-sm89"}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_file_has_a_name_in_any_folder() -> None:
    named = {*shipped.recipes().values(), *shipped.sweeps().values(), *shipped.targets().values()}
    assert named == set((ROOT / "recipes").rglob("*.yaml"))
    assert set(shipped.targets()) == TARGETS
    assert {"smoke", "mobilenet_int8", "imagenet/resnet50_int8"} <= set(shipped.recipes())
    assert set(shipped.sweeps()) == {"solar"}


def test_a_wheel_has_its_own_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = elsewhere / "site-packages" / "compress" / "recipe" / "shipped.py"
    monkeypatch.setattr(shipped, "__file__", str(module))
    assert shipped.folder() == elsewhere / "site-packages" / "recipes"
    (module.parents[1] / "recipes").mkdir(parents=True)
    assert shipped.folder() == module.parents[1] / "recipes"


def test_a_name_is_found() -> None:
    assert shipped.find("smoke", shipped.recipes()) == ROOT / "recipes" / "smoke.yaml"


def test_a_file_goes_before_a_name_and_a_folder_does_not(elsewhere: Path) -> None:
    (elsewhere / "smoke").mkdir()
    assert shipped.find("smoke", shipped.recipes()) == ROOT / "recipes" / "smoke.yaml"
    (elsewhere / "solar").write_text("mine")
    assert shipped.find("solar", shipped.sweeps()) == Path("solar")
    assert shipped.find("solar", shipped.sweeps(), elsewhere) == elsewhere / "solar"


@pytest.mark.parametrize(
    "name", ["mobilnet_int8", "MobileNet_INT8", "recipes/mobilenet_int8.yaml", "imagenet/mobilenet_int8"]
)
def test_a_similar_name_is_suggested(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: no such file; did you mean the shipped 'mobilenet_int8'\\?$"):
        shipped.find(name, shipped.recipes())


@pytest.mark.parametrize("name", ["zzz.yaml", "", ".", "..", "/"])
def test_the_path_of_anything_else_is_returned(name: str) -> None:
    assert shipped.find(name, shipped.recipes()) == Path(name)
