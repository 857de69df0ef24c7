"""Checkpoints: weights as safetensors; the architecture is rebuilt from the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from compress.networks import FUSED, PRUNED, WEIGHTS_FILE, architecture, fusion
from compress.networks.channels import RGB, take_channels
from compress.networks.shape import take_shape
from runtimes.errors import InputError
from runtimes.files import write_bytes


def save(folder: Path, network: nn.Module, pruned: bool = False, fused: bool = False) -> None:
    """Write the network's weights into the folder.

    pruned: whether it has fewer channels than its architecture. fused: whether its branches are fused.
    """
    flags = {PRUNED: pruned, FUSED: fused}
    save_tensors(folder / WEIGHTS_FILE, network.state_dict(), {name: "true" for name, flag in flags.items() if flag})


def is_pruned(folder: Path) -> bool:
    """Return whether the folder's network was saved as a pruned one."""
    return _metadata(folder).get(PRUNED) == "true"


def is_fused(folder: Path) -> bool:
    """Return whether the folder's network was saved as a fused one."""
    return _metadata(folder).get(FUSED) == "true"


def _metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / WEIGHTS_FILE, "pt") as stream:
        return stream.metadata() or {}


def load(
    folder: Path,
    model: Any,  # Any: the Config of whichever plug-in of compress/models
    num_classes: int,
    channels: int = RGB,
) -> nn.Module:
    """Return the network in eval mode with the folder's weights, in the form in which it was saved.

    model: the `model` section of the recipe. channels: of the images.
    Raises InputError where the file is missing, damaged or of another architecture.
    """
    network = architecture.build(model, num_classes)
    tensors, metadata = load_tensors(folder / WEIGHTS_FILE)
    network = fusion.fused(network) if metadata.get(FUSED) == "true" else network
    take_channels(network, channels)
    return take_shape(network, tensors).eval()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors and text metadata to one safetensors file, atomically."""
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_bytes(path, serialize(contiguous, metadata))  # errors of safetensors' save_file don't name the cause


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and metadata that `save_tensors` wrote; raises InputError for any other file."""
    try:
        with safe_open(path, "pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); run with --fresh to create it again") from error
