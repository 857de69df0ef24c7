from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import compress
from compress.models import resnet
from compress.recipe import plugins
from compress.recipe.section import Config

KINDS: list[plugins.Kind] = ["models", "data", "stages"]
ENTRY = {"models": "build", "data": "load", "stages": "run"}
EVERY = [(kind, name) for kind in KINDS for name in plugins.names(kind)]


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("models", {"efficientnet_lite", "mobilenet_v2", "mobilenet_v3", "resnet"}),
        ("data", {"elpv", "imagefolder", "synthetic"}),
        ("stages", {"train"}),
    ],
)
def test_the_plug_ins_are_the_files(kind: plugins.Kind, some: set[str]) -> None:
    folder = Path(compress.__file__).parent / kind
    files = {path.stem for path in folder.iterdir() if path.suffix == ".py"} - {"__init__"}
    assert plugins.names(kind) == sorted(files)
    assert some <= files


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_plug_in_is_called_like_its_file(kind: plugins.Kind, name: str) -> None:
    config = plugins.load(kind, name).Config
    assert config.model_fields[plugins.TAG[kind]].default == name
    assert issubclass(config, Config)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_plug_in_has_a_line_about_itself_and_its_one_function(kind: plugins.Kind, name: str) -> None:
    module = plugins.load(kind, name)
    assert callable(getattr(module, ENTRY[kind]))
    assert module.__doc__
    assert module.Config.__doc__
    if kind == "models":
        assert callable(module.published)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_config_is_frozen_and_knows_its_keys(kind: plugins.Kind, name: str) -> None:
    config = plugins.load(kind, name).Config
    needed = {"imagefolder": {"test": "folder"}, "imagenet": {"root": "folder"}, "prune": {"macs": 0.5}}.get(name, {})
    with pytest.raises(ValidationError, match="frozen"):
        config(**needed).weights = "other"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        config(**needed, no_such_key=1)


def test_the_tag_chooses_the_config() -> None:
    union = TypeAdapter(plugins.config_union("models"))
    assert union.validate_python({"arch": "resnet", "depth": 50}) == resnet.Config(depth=50)
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        union.validate_python({"arch": "squeezenet"})


def test_a_new_file_is_a_new_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "__file__", str(tmp_path / "recipe" / "plugins.py"))
    (tmp_path / "data").mkdir()
    for name in ("flowers.py", "__init__.py", "_private.py", "readme.txt"):
        (tmp_path / "data" / name).touch()
    assert plugins.names("data") == ["flowers"]
