"""The list of all keys of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compress.recipe import keys, recipe
from compress.recipe.keys import Key, Section
from runtimes.errors import InputError

SECTIONS = keys.sections()
BY_PATH = {key.path: key for section in SECTIONS for key in section.keys}


@pytest.mark.parametrize(
    ("path", "value", "default"),
    [
        ("seed", "whole number, at least 0", "0"),
        ("device", "auto, cpu or cuda", "auto"),
        ("data", "section with name: elpv, imagefolder, imagenet, synthetic", "required"),
        ("data.imagefolder.root", "path", "none"),
        ("preprocessing.mean", "number or list: number", ""),
        ("model.resnet.depth", "18 or 50", "18"),
        ("stages.train.epochs", "whole number, 1 to 10000", "30"),
        ("stages.qat.epochs", "whole number, 1 to 10000", "4"),
        ("stages.prune.latency", "number, above 0, below 1", "none"),
        ("stages.prune.limits", "names with values: number, above 0, below 1", ""),
        ("stages.train.augment.hflip", "true or false", "true"),
        ("export.batch", "whole number, 1 to 4096 or dynamic", "dynamic"),
        ("quantize", "section", "none"),
        ("timing", "section", ""),
        ("targets", "list: section or text", ""),
        ("targets.name", "text", "required"),
        ("gate.min_recall", "names with values: number, above 0, at most 1", "none"),
        ("tracking", "list: tensorboard or mlflow", "none"),
    ],
)
def test_a_key_has_its_value_and_default(path: str, value: str, default: str) -> None:
    assert (BY_PATH[path].type, BY_PATH[path].default) == (value, default)


def test_a_key_or_section_is_found_by_its_path_or_the_end_of_it() -> None:
    assert keys.find("gate.max_drop_pp", SECTIONS) == [BY_PATH["gate.max_drop_pp"]]
    assert keys.find("max_drop_pp", SECTIONS) == [BY_PATH["gate.max_drop_pp"]]
    key, section = keys.find("gate", SECTIONS)
    assert isinstance(key, Key)
    assert isinstance(section, Section)
    assert {entry.path for entry in keys.find("epochs", SECTIONS)} == {
        f"stages.{stage}.epochs" for stage in ("train", "distill", "qat", "prune.fine_tune")
    }


def test_a_path_may_hold_the_indices_of_lists() -> None:
    stages = ("distill", "qat", "train")
    assert {entry.path for entry in keys.find("stages.0.epochs", SECTIONS)} == {
        f"stages.{name}.epochs" for name in stages
    }
    assert keys.find("stages.1.fine_tune.epochs", SECTIONS) == [BY_PATH["stages.prune.fine_tune.epochs"]]
    assert keys.find("targets.0.threads", SECTIONS) == [BY_PATH["targets.threads"]]
    assert keys.find("stages.0", SECTIONS) == keys.find("stages", SECTIONS)


@pytest.mark.parametrize(
    ("name", "section"),
    [("model.arch", "model"), ("data.name", "data"), ("stages.stage", "stages"), ("stages.0.stage", "stages")],
)
def test_a_key_that_selects_a_plug_in_is_explained_by_its_section(name: str, section: str) -> None:
    assert keys.find(name, SECTIONS) == [BY_PATH[section]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gat", "did you mean gate or qat\\?$"),
        ("GATE", "did you mean gate"),
        ("gate.max_drop_p", "did you mean gate.max_drop_pp or "),
        ("stages.train.epoch", "did you mean stages.train.epochs or "),
        ("zzz", "compress explain lists the sections"),
    ],
)
def test_an_unknown_key_gets_near_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^a recipe has no key '{name}'; {message}"):
        keys.find(name, SECTIONS)


def test_defaults_are_those_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "least.yaml"
    path.write_text("data: {name: elpv}\nmodel: {arch: resnet}\nquantize: {}\n")
    loaded = yaml.safe_load(recipe.load(path).to_yaml())
    assert str(loaded["quantize"]["calibration_images"]) == BY_PATH["quantize.calibration_images"].default
    assert str(loaded["timing"]["blocks"]) == BY_PATH["timing.blocks"].default
