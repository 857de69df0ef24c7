"""Networks of timm: names, tags, preprocessing, sizes and classifiers."""

from __future__ import annotations

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import nn

from compress.models import timm as networks
from compress.networks.weights import initialise
from compress.recipe import network_defaults
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ["test_vit", "test_convnext", "test_byobnet", "test_efficientnet", "test_nfnet", "test_resnet", "test_mambaout"]


@pytest.mark.parametrize(("name", "message"), [
    ("mobilenet_v4_conv_small", "no network 'mobilenet_v4_conv_small'; did you mean 'mobilenetv4_conv_small' or"),
    ("ResNet-50", "did you mean 'resnet50"),
    ("convnext_tiny_in22ft1k", "it is called 'convnext_tiny.fb_in22k_ft_in1k' now"),
    ("test_vit.r160", "timm has no 'r160' of test_vit; did you mean 'r160_in1k'?"),
    ("xyzzy", "compress list models --timm PATTERN lists its names"),
    ("", "compress list models --timm PATTERN lists its names"),
])  # fmt: skip
def test_an_unknown_name_is_refused_with_similar_ones(name: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        networks.Config(name=name)
    assert message in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("name", TINY)
def test_networks_give_logits_and_new_ones_have_small_classifiers(name: str) -> None:
    network = networks.build(networks.Config(name=name, image_size=(64, 64)), 2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    (classifier,) = networks.classifiers(network)
    layer = network.get_submodule(classifier)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.abs().max() <= layer.in_features**-0.5


def test_the_tag_decides_the_preprocessing() -> None:
    name = "mobilenetv4_conv_small"
    usual = networks.preprocessing(networks.Config(name=name))
    assert usual == Preprocessing(256, 224, "bicubic")
    larger = networks.preprocessing(networks.Config(name=f"{name}.e3600_r256_in1k"))
    assert (larger.resize, larger.crop) == (269, 256)
    for weights in ("e3600_r256_in1k", f"{name}.e3600_r256_in1k"):
        assert networks.preprocessing(networks.Config(name=name, weights=weights)) == larger
    half = networks.preprocessing(networks.Config(name="test_vit"))
    assert (half.mean, half.std, half.crop) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 160)


def test_every_preprocessing_and_fact_of_timm_is_valid() -> None:
    known = timm.list_models()
    assert len(known) > 1000
    for name in known:
        own = network_defaults.usual({"arch": "timm", "name": name})
        assert own.resize >= min(own.height, own.width)
        size, _ = networks.facts(name)
        assert size == own.crop_text


def test_a_network_of_a_fixed_size_is_built_for_the_images() -> None:
    config = networks.Config(name="test_vit", image_size=(64, 96))
    assert networks.has_fixed_size(config)
    with torch.inference_mode():
        assert networks.build(config, 5).eval()(torch.zeros(1, 3, 64, 96)).shape == (1, 5)
    assert not networks.has_fixed_size(networks.Config(name="test_resnet"))


def test_a_size_that_it_cant_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, **options: object) -> None:
        raise AssertionError("Image size must be divisible\nby the window")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(
        InputError,
        match=r"can't be built for images of 63 x 63 pixels \(Image size must be divisible\); set",
    ):
        networks.build(networks.Config(name="test_maxvit", image_size=(63, 63)), 5)


def test_files_of_another_size_and_number_of_classes_are_converted(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("weights") / "vit.pth"
    own = timm.create_model("test_vit", img_size=(96, 96), num_classes=9).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in own.items()}}, file)
    config = networks.Config(name="test_vit", weights=str(file), image_size=(64, 64))
    network, loaded = initialise(config, 3, 0)
    assert loaded.random == ("head",)
    assert any("converted from another form or image size" in note for note in loaded.notes)
    assert torch.equal(network.state_dict()["blocks.0.mlp.fc1.weight"], own["blocks.0.mlp.fc1.weight"])


def test_both_classifiers_of_a_network_are_replaced(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("weights") / "repvit.pth"
    torch.save(timm.create_model("repvit_m0_9", num_classes=9).state_dict(), file)
    _, loaded = initialise(networks.Config(name="repvit_m0_9", weights=str(file)), 3, 0)
    assert loaded.random == ("head.head.l", "head.head_dist.l")


def test_names_match_as_files_do() -> None:
    assert networks.matching_names("*mobilenetv4_conv_s*") == networks.matching_names("MobileNetV4_conv_S")
    assert networks.matching_names("test_vit.*") == ["test_vit.r160_in1k"]
    with pytest.raises(InputError, match=r"--timm mobilenetv44\*: timm has no such network; did you mean 'mobile"):
        networks.matching_names("mobilenetv44*")
    assert networks.facts("mobilenetv4_conv_small")[1][0] == "e2400_r224_in1k"
    assert networks.facts("mobilenetv4_conv_small_035") == ("224", ())
