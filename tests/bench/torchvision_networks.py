"""Networks of torchvision without a family in compress/models: arch: torchvision_networks:build, with --code."""

from __future__ import annotations

from torch import nn

AUXILIARY = ("googlenet", "inception_v3")  # have classifiers for training


def build(num_classes: int, name: str) -> nn.Module:
    """Return the network of a name with random weights."""
    from torchvision.models import get_model

    options = {"aux_logits": False, "init_weights": False} if name in AUXILIARY else {}
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes, **options)
    return network
