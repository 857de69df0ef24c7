"""From the layers of an exported graph back to the modules that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from export.layers import layers_of
from runtimes.errors import CompressError

TOLERANCE = 1e-3


@dataclass
class _Place:
    """A convolution or linear layer and the BatchNorm that was folded into it."""

    layer: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None = None


@torch.no_grad()
def write_back(
    trained: Mapping[str, tuple[Tensor, Tensor]], graph: onnx.ModelProto, network: nn.Module, example: Tensor
) -> None:
    """Give the modules of a network the weights and biases (of layers of its exported graph) that were trained.

    BatchNorm keeps its statistics and its weight; its bias takes up the change. Raises CompressError where graph and
    network don't have the same layers.
    """
    places = _places(network, example)
    layers = layers_of(graph)
    if len(places) != len(layers):
        raise CompressError(f"qat: the network has {len(places)} layers, its exported graph {len(layers)}")
    for place, (name, layer) in zip(places, layers.items(), strict=True):
        before = torch.from_numpy(layer.weight.copy()).float()
        weight, bias = trained[name]
        if layer.axis == 1:
            before, weight = before.T, weight.T
        factor = _factor(before, place.layer.weight, name)
        shape = (-1, *(1,) * (weight.ndim - 1))
        alive = factor != 0
        new = weight / torch.where(alive, factor, 1.0).reshape(shape)
        place.layer.weight.copy_(torch.where(alive.reshape(shape), new, place.layer.weight))
        _add_to_bias(place, bias - torch.from_numpy(layer.bias).float(), factor)


def _places(network: nn.Module, example: Tensor) -> list[_Place]:
    """Return the layers in the order in which they run, each with the BatchNorm right behind it."""
    found: list[_Place] = []
    outputs: dict[int, Tensor] = {}

    def see(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            for index, place in enumerate(found):
                if outputs[index] is given[0]:
                    place.norm = module
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            outputs[len(found)] = output
            found.append(_Place(module))

    hooks = [module.register_forward_hook(see) for module in network.modules()]
    try:
        network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _factor(folded: Tensor, weight: Tensor, name: str) -> Tensor:
    """Return by what each output channel (O,) was multiplied when the graph was made; 0 for channels of zeros."""
    if folded.shape != weight.shape:
        raise CompressError(
            f"qat: the layer {name} has weights {tuple(folded.shape)}, its module {tuple(weight.shape)}"
        )
    rows, own = folded.flatten(1).double(), weight.detach().flatten(1).double()
    factor = (rows * own).sum(1) / (own * own).sum(1).clamp_min(1e-30)
    if (rows - factor[:, None] * own).abs().max() > TOLERANCE * rows.abs().max().clamp_min(1e-30):
        raise CompressError(f"qat: the weights of the layer {name} are not those of the module that runs in its place")
    return factor.float()


def _add_to_bias(place: _Place, change: Tensor, factor: Tensor) -> None:
    """Add to the bias what the graph's bias changed by, before what the graph multiplies it with."""
    if place.norm is not None:
        norm = place.norm
        assert norm.running_var is not None
        own = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        behind = torch.where(own.abs() > 0, factor / torch.where(own == 0, 1.0, own), 0.0)
        behind = torch.where(behind == 0, 1.0, behind)  # a dead channel: nothing but its bias is left
        norm.bias.add_(change / behind)
        return
    behind = torch.where(factor == 0, 1.0, factor)
    if place.layer.bias is None:
        place.layer.bias = nn.Parameter(torch.zeros_like(change))
    place.layer.bias.add_(change / behind)
