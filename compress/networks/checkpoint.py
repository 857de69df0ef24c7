"""Networks on disk: safetensors for the weights; the architecture is rebuilt from the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import nn

from compress.pruning.surgery import take_shape
from compress.recipe import plugins
from runtimes.errors import InputError
from runtimes.files import write_bytes

WEIGHTS_FILE = "network.safetensors"


def save(folder: Path, network: nn.Module) -> None:
    """Write the network's weights into the folder."""
    save_tensors(folder / WEIGHTS_FILE, network.state_dict(), {})


def load(folder: Path, model: Any, num_classes: int) -> nn.Module:
    """Rebuild the network of the recipe's section `model` with the folder's weights, pruned or not, in eval mode."""
    network: nn.Module = plugins.load("models", model.arch).build(model, num_classes)
    tensors, _ = load_tensors(folder / WEIGHTS_FILE)
    return take_shape(network, tensors).eval()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors and texts as one safetensors file, wholly or not at all."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_bytes(path, serialized(plain, metadata))  # safetensors' own writing hides why it failed


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote; raises InputError for any other file."""
    try:
        with safe_open(path, "pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); run with --fresh to make it again") from error
