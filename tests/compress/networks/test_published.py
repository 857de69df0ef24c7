"""Weights that torchvision and timm publish; test_weights.py has the downloads of torchvision."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import save_file

from compress.models import mobilenet_v2
from compress.models import timm as networks
from compress.networks import hub, published, weights
from runtimes.errors import InputError, UnavailableError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no 'x' for test_vit; choose from pretrained, r160_in1k; give the path"):
        published.require(networks.Config(name="test_vit", weights="x"))
    with pytest.raises(
        InputError, match="'pretrained': timm publishes no weights for mobilenetv4_conv_small_035; give"
    ):
        published.require(networks.Config(name="mobilenetv4_conv_small_035", weights="pretrained"))
    with pytest.raises(InputError, match="no 'x' for mobilenet_v2; choose from IMAGENET1K_V1"):
        published.require(mobilenet_v2.Config(weights="x"))


@pytest.mark.parametrize("name", ["pretrained", "r160_in1k", "test_vit.r160_in1k"])
def test_weights_of_timm_are_resized_and_get_a_new_classifier(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = timm.create_model("test_vit").state_dict()
    save_file(own, tmp_path / "model.safetensors")
    asked: list[str] = []
    monkeypatch.setattr(hub, "cached", lambda weights: asked.append(weights) or tmp_path / "model.safetensors")
    config = networks.Config(name="test_vit", weights=name, image_size=(64, 64))
    published.require(config)
    network, loaded = weights.initialise(config, 3, 0)
    state = network.state_dict()
    assert asked == ["hf:timm/test_vit.r160_in1k"]
    assert loaded.random == ("head",)
    assert state["pos_embed"].shape[1] < own["pos_embed"].shape[1]
    assert torch.equal(state["blocks.0.attn.qkv.weight"], own["blocks.0.attn.qkv.weight"])


def test_a_failed_download_through_timm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object, file: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(networks, "published_repository", lambda config: None)
    monkeypatch.setattr(networks, "published_tensors", fail)
    with pytest.raises(
        UnavailableError, match=r"weights: pretrained of test_vit can't be downloaded \(no route\); give"
    ):
        published.tensors(networks.Config(name="test_vit", weights="pretrained"))
