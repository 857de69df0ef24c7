"""Fuse the branches of re-parameterized networks, such as MobileOne, RepVGG and RepViT, into single layers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.networks.layers import layer_shapes
from compress.recipe.foreign import NETWORK_ERRORS
from runtimes.errors import InputError

METHODS = ("fuse", "reparameterize", "switch_to_deploy")  # the usual names, in the order in which timm tries them
TOLERANCE = 1e-4  # of the largest output: fused weights are float32, compared in float64
IMAGES = 2


@dataclass(frozen=True)
class Fusion:
    """The change by fusion. difference: of the outputs on noise, as a share of the largest one."""

    layers_before: int
    layers_after: int
    parameters_before: int
    parameters_after: int
    difference: float

    def line(self) -> str:
        """Return one line for the report."""
        return (
            f"fuse: {self.layers_before} layers with {self.parameters_before:,} parameters became {self.layers_after} "
            f"layers with {self.parameters_after:,}; outputs differ by {self.difference:.0e} of the largest one"
        )


def is_fusible(network: nn.Module) -> bool:
    """Return whether fusing changes a network. Raises InputError with the name of a module that cannot be fused."""
    if not any(fusion_method(module) for module in network.modules()):
        return False
    return fused(network).state_dict().keys() != network.state_dict().keys()


def fused(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode in which every module that has one of the `METHODS` is fused.

    A module comes before its parts, because it fuses them itself. Raises InputError with the name of a module that
    cannot be fused.
    """
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        if not any(fusion_method(module) for name, module in network.named_modules() if name):
            return _fuse(network, "the network")
        _fuse_children(network, "")
    return network.eval()


@torch.no_grad()
def fused_checked(network: nn.Module, example: Tensor) -> tuple[nn.Module, Fusion]:
    """Return the fused network and what fusing changed.

    example: (N, C, H, W); only its shape matters. Raises InputError if the outputs on seeded noise differ by more than
    the rounding of the fused weights.
    """
    after = fused(network)
    images = torch.randn(IMAGES, *example.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    expected, outputs = (copy.deepcopy(each).cpu().eval().double()(images) for each in (network, after))
    difference = float((outputs - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        blocks = sorted({type(module).__name__ for module in network.modules() if fusion_method(module)})
        raise InputError(
            f"fuse: the network's outputs change by {difference:.2g} of the largest one, so fusing "
            f"{', '.join(blocks)} is not exact; correct its method, or remove it to export the network unfused"
        )
    layers = len(layer_shapes(network)), len(layer_shapes(after))
    before_count, after_count = (sum(part.numel() for part in each.parameters()) for each in (network, after))
    return after, Fusion(*layers, before_count, after_count, difference)


def trained_layers(network: nn.Module, after: nn.Module) -> dict[str, str]:
    """Return, for each layer of the fused network, one of the trained network with the same channels.

    It is in the same module, and of the largest kernel there.
    """
    shapes, modules = layer_shapes(network), dict(network.named_modules())
    same: dict[str, str] = {}
    for name, shape in layer_shapes(after).items():
        parts = name.split(".")
        for length in range(len(parts), -1, -1):
            prefix = "".join(f"{part}." for part in parts[:length])
            inside = [layer for layer in shapes.keys() - same.values()
                      if f"{layer}.".startswith(prefix) and shapes[layer] == shape]  # fmt: skip
            if inside:
                same[name] = max(sorted(inside), key=lambda layer: _kernel_size(modules[layer]))
                break
        else:
            raise InputError(f"fuse: no layer of the trained network has the channels of '{name}'")
    return same


def _kernel_size(layer: nn.Module) -> int:
    return layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1


def _fuse_children(parent: nn.Module, prefix: str) -> None:
    for name, child in list(parent.named_children()):
        if fusion_method(child):
            child = _fuse(child, prefix + name)
            setattr(parent, name, child)
        _fuse_children(child, f"{prefix}{name}.")


def _fuse(module: nn.Module, name: str) -> nn.Module:
    """Call the method of a module; return what it returns, or the module if that is nothing."""
    method = fusion_method(module)
    if method is None:
        return module
    try:
        replacement = method()
    except NETWORK_ERRORS as error:
        raise InputError(f"fuse: {name} ({type(module).__name__}) can't be fused: {error}") from error
    return replacement if isinstance(replacement, nn.Module) else module


def fusion_method(module: nn.Module) -> Callable[[], object] | None:
    """Return the method that fuses a module; one that needs arguments is something else."""
    for name in METHODS:
        method = getattr(module, name, None)
        if inspect.ismethod(method) and all(
            parameter.default is not inspect.Parameter.empty
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in inspect.signature(method).parameters.values()
        ):
            return method
    return None
