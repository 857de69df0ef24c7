"""Weights that torchvision publishes for its networks, and timm for those of `arch: timm`."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from compress.networks import hub
from compress.networks.sources import weights_file
from compress.networks.weight_files import Tensors
from compress.recipe import plugins
from runtimes.errors import InputError, UnavailableError

OTHER_SOURCES = "give the path of a .safetensors or .pth file, package:NAME or hf:REPO"
DOWNLOAD_ERRORS = (OSError, HTTPException, RuntimeError)  # RuntimeError: the hash differs


def require(config: Any) -> None:  # Any: the Config of whichever plug-in of compress/models
    """Raise InputError if `config.weights` names no weights that are published for the network."""
    family = plugins.load("models", config.arch)
    if hasattr(family, "published_tensors"):
        _require_of_family(family, config)
    else:
        entry(config)


def tensors(config: Any) -> Tensors:  # Any: the Config of whichever plug-in of compress/models
    """Return the published weights, downloaded on first use; raises InputError for an unknown name.

    Raises UnavailableError where the download fails.
    """
    family = plugins.load("models", config.arch)
    if hasattr(family, "published_tensors"):
        _require_of_family(family, config)
        return _of_family(family, config)
    return _of_torchvision(config)


def _require_of_family(family: Any, config: Any) -> None:
    try:
        family.require_published(config)
    except InputError as error:
        raise InputError(f"{error}; {OTHER_SOURCES}") from None


def _of_family(family: Any, config: Any) -> Tensors:
    repository = family.published_repository(config)
    try:
        file = weights_file(f"{hub.HUB}{repository}") if repository else None
        tensors: Tensors = family.published_tensors(config, file)
    except DOWNLOAD_ERRORS as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(
            f"weights: {config.weights} of {config.name} can't be downloaded ({reason}); {OTHER_SOURCES}"
        ) from error
    return tensors


def entry(config: Any) -> Any:  # Any: a plug-in's Config; a member of one of torchvision's enumerations
    """Return the weights that torchvision publishes; raises InputError for an unknown name."""
    from torchvision.models import get_model_weights

    name, published = config.weights, plugins.published(config)
    if published is None:
        raise InputError(f"weights: '{name}': torchvision publishes no weights for this network; {OTHER_SOURCES}")
    known = {member.name: member for member in get_model_weights(published)}
    if name not in known:
        raise InputError(f"weights: no '{name}' for {published}; choose from {', '.join(known)}, or {OTHER_SOURCES}")
    return known[name]


def _of_torchvision(config: Any) -> Tensors:
    weights, published = entry(config), plugins.published(config)
    try:
        tensors: Tensors = weights.get_state_dict(progress=False, check_hash=True)
    except DOWNLOAD_ERRORS as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UnavailableError(
            f"weights: {config.weights} of {published} can't be downloaded ({getattr(error, 'reason', error)}); "
            f"{OTHER_SOURCES}, or put {weights.url.rsplit('/', 1)[-1]} into {cache}"
        ) from error
    return tensors
