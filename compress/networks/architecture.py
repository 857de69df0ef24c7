"""Build the network of a section `model`, and check networks that are not built in before any work."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import nn

from compress.networks.channels import take_channels
from compress.recipe import foreign, plugins
from runtimes.errors import InputError

ModelConfig: TypeAlias = Any  # the Config of whichever plug-in of compress/models

ANY_CLASSES = 10
TOLERANCE = 1e-4  # of two builds with the same weights; they differ by the order of sums at most


def build(section: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network with random weights; raises InputError if code that is not the toolkit's fails."""
    plugin = plugins.load("models", section.arch)
    if plugins.origin(section) is None:
        network: nn.Module = plugin.build(section, num_classes)
        return network
    with foreign.one_line(f"{section.arch}: fails"):
        network = plugin.build(section, num_classes)
    if not isinstance(network, nn.Module):
        raise InputError(f"{section.arch}: returns a {type(network).__name__}; it must return a torch.nn.Module")
    return network


def require_usable(section: ModelConfig, shape: tuple[int, int, int]) -> None:
    """Raise InputError for a network that is not built in and can't go through the pipeline.

    shape: channels, height and width of an image. The network maps (N, C, H, W) to (N, classes) in training and in eval
    mode, and its outputs depend on nothing but images and weights: checkpoints hold weights only.
    """
    if plugins.origin(section) is None:
        return
    with torch.random.fork_rng(devices=[]):
        first, second = build(section, ANY_CLASSES), build(section, ANY_CLASSES)
        for network in (first, second):
            take_channels(network, shape[0])
        images = torch.rand(2, *shape)
        _outputs(section, first.train(), images)
        first.eval()
        if first.state_dict().keys() != second.state_dict().keys():
            raise InputError(f"{section.arch}: two calls return networks with different names of weights")
        with foreign.one_line(f"{section.arch}: its weights can't be loaded"):
            second.load_state_dict(first.state_dict())
        difference = (_outputs(section, first, images) - _outputs(section, second.eval(), images)).abs().max()
        if not difference <= TOLERANCE:
            raise InputError(
                f"{section.arch}: two networks with the same weights differ by {difference:.2g} in eval mode; keep "
                "every tensor as a parameter or buffer of a module, and drop nothing in eval mode"
            )


def _outputs(section: ModelConfig, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the outputs; raises InputError if they are no float32 (N, classes)."""
    mode = "training" if network.training else "eval"
    what = f"{section.arch}: for images {tuple(images.shape)} in {mode} mode"
    with foreign.one_line(f"{what} it fails"), torch.no_grad():
        outputs = network(images)
    expected = (len(images), ANY_CLASSES)
    if not isinstance(outputs, torch.Tensor):
        raise InputError(f"{what} it returns a {type(outputs).__name__}; it must return one tensor {expected}")
    if tuple(outputs.shape) != expected or outputs.dtype != torch.float32:
        raise InputError(
            f"{what} and {ANY_CLASSES} classes it returns {tuple(outputs.shape)} of {outputs.dtype}; it must return "
            f"{expected} of torch.float32"
        )
    return outputs
