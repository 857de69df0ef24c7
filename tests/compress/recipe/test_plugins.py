from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

import compress
from compress.models import resnet
from compress.recipe import plugins
from compress.recipe import recipe as recipes
from compress.recipe.section import Config
from runtimes.errors import InputError

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
    every_needed = {"imagefolder": {"test": "folder"}, "imagenet": {"root": "folder"}, "prune": {"macs": 0.5},
                    "timm": {"name": "resnet18"}}  # fmt: skip
    needed = every_needed.get(name, {})
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


ACME = '''"""Acme's network."""
from typing import Literal
from compress.recipe.section import NetworkConfig
class Config(NetworkConfig):
    arch: Literal["{name}"] = "{name}"
    width: int = 8
def build(config, num_classes): pass
'''
MODELS = TypeAdapter(plugins.config_union("models"))


def lines(content: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        MODELS.validate_python(content)
    return [str(line["msg"]) for line in caught.value.errors()]


def test_a_package_adds_a_name(package: Callable[..., None]) -> None:
    package({"acme_four.py": ACME.format(name="acme")}, {"compress.models": {"acme": "acme_four"}})
    assert "acme" in plugins.names("models")
    section = MODELS.validate_python({"arch": "acme", "width": 16})
    assert section.width == 16
    assert MODELS.validate_python(section) == section
    assert MODELS.dump_python(section, mode="json")["width"] == 16
    origin = plugins.origin(section)
    assert origin is not None
    assert origin.owner == "acme-nets 1.2"
    assert plugins.described(section)["code"] == {"owner": "acme-nets 1.2", "sha256": origin.sha256}
    assert plugins.published(section) is None
    assert plugins.origin(resnet.Config()) is None


def test_a_broken_package_does_not_disturb_others(package: Callable[..., None]) -> None:
    package({"acme_five.py": "import no_such_module"}, {"compress.models": {"acme": "acme_five"}})
    assert MODELS.validate_python({"arch": "resnet"}) == resnet.Config()
    (line,) = lines({"arch": "acme"})
    assert line.startswith("the package acme-nets 1.2: its plug-in 'acme' of compress.models can't be imported")


def test_a_name_of_two_owners_is_refused_with_both(package: Callable[..., None]) -> None:
    points = {"compress.models": {"resnet": "acme_six", "acme": "acme_six"}}
    package({"acme_six.py": ACME.format(name="resnet")}, points)
    package({}, {"compress.models": {"acme": "other"}}, name="other")
    (line,) = lines({"arch": "resnet"})
    assert line.startswith("'resnet' is registered by compress and by acme-nets 1.2; uninstall a package")
    (line,) = lines({"arch": "acme"})
    assert "acme-nets 1.2" in line
    assert "other 1.2" in line
    assert MODELS.validate_python({"arch": "vgg"}).arch == "vgg"


def test_code_is_identified_by_its_file(code: Callable[..., Path]) -> None:
    path = code("def build(num_classes, width=1): pass")
    section = MODELS.validate_python({"arch": "my_net:build", "width": 2})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert plugins.described(section) == {
        "weights": None, "weights_key": None, "arch": "my_net:build", "width": 2,
        "code": {"owner": "my_net.py", "sha256": sha256},
    }  # fmt: skip


def test_problems_of_a_plug_in_have_their_place_in_the_recipe(
    package: Callable[..., None], code: Callable[..., Path], tmp_path: Path
) -> None:
    package({"acme_seven.py": ACME.format(name="acme")}, {"compress.models": {"acme": "acme_seven"}})
    code("def build(num_classes, depth: int): pass")
    teacher = {"network": {"arch": "acme", "width": "x", "weights": "w"}}
    content = {
        "data": {"name": "synthetic"},
        "model": {"arch": "my_net:build", "dpeth": 2},
        "stages": [{"stage": "train", "teacher": teacher}],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        recipes.load(tmp_path / "r.yaml")
    prefix = f"{tmp_path / 'r.yaml'}: "
    assert [line.removeprefix(prefix) for line in str(caught.value).splitlines()] == [
        "model.depth: is required",
        "model.dpeth: unknown key; did you mean 'depth'?",
        "stages.0.teacher.network: must be 'baseline' or 'before'",
        'stages.0.teacher.network.width: must be a valid integer, unable to parse string as an integer, not "x"',
    ]
    content["model"] = {"arch": "acmee"}
    content["stages"] = []
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"model\.arch: there is no 'acmee'; did you mean 'acme'\?"):
        recipes.load(tmp_path / "r.yaml")
