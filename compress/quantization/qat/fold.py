"""Write trained weights of an exported graph back into the modules of the PyTorch network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from export.layers import Layer, layers_of
from runtimes.errors import CompressError

TOLERANCE = 1e-3  # of the largest weight: difference between the graph's weights and the scaled module's


@dataclass
class _Place:
    """A convolution or linear layer, and the BatchNorm folded into it."""

    layer: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None = None


@torch.no_grad()
def write_back(
    trained: Mapping[str, tuple[Tensor, Tensor]], graph: onnx.ModelProto, network: nn.Module, example: Tensor
) -> None:
    """Set the weights and biases of a network's modules to those trained in its exported graph, in place.

    trained: weight and bias of each layer of the graph. example: an input of the network. BatchNorm keeps its
    statistics and weight; its bias absorbs the change. Layers that come from no module stay as they are.
    """
    layers = layers_of(graph)
    for name, (place, factor) in _matches(layers, network, example).items():
        layer, (weight, bias) = layers[name], trained[name]
        weight = weight.T if layer.axis == 1 else weight
        shape = (-1, *(1,) * (weight.ndim - 1))
        alive = factor != 0
        new = weight / torch.where(alive, factor, 1.0).reshape(shape)
        place.layer.weight.copy_(torch.where(alive.reshape(shape), new, place.layer.weight))
        _add_to_bias(place, bias - torch.from_numpy(layer.bias).float(), factor)


@torch.no_grad()
def module_names(graph: onnx.ModelProto, network: nn.Module, example: Tensor) -> dict[str, str]:
    """Return the name of the network's module that each layer of its exported graph comes from.

    Layers whose weights are no multiple of a module's are missing. Raises CompressError if all are.
    """
    names = {module: name for name, module in network.named_modules()}
    layers = layers_of(graph)
    modules = {layer: names[place.layer] for layer, (place, _) in _matches(layers, network, example).items()}
    if layers and not modules:
        raise CompressError("qat: no layer of the exported graph has the weights of one of the network's modules")
    return modules


def _matches(layers: Mapping[str, Layer], network: nn.Module, example: Tensor) -> dict[str, tuple[_Place, Tensor]]:
    """Return each layer's module, and the factors (O,) between the module's weights and the layer's.

    Of modules that fit, the first in the order of execution.
    """
    free = {id(place.layer): place for place in reversed(_places(network, example))}
    places = list(reversed(free.values()))  # a module that runs twice counts once
    matches: dict[str, tuple[_Place, Tensor]] = {}
    for name, layer in layers.items():
        weight = torch.tensor(layer.weight)
        weight = weight.T if layer.axis == 1 else weight
        for place in places:
            factor = _factor(weight, place.layer.weight)
            if factor is not None:
                matches[name] = place, factor
                places.remove(place)
                break
    return matches


def _places(network: nn.Module, example: Tensor) -> list[_Place]:
    """Return the layers in execution order, each with the BatchNorm that directly follows it."""
    places: list[_Place] = []
    outputs: dict[int, Tensor] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            for index, place in enumerate(places):
                if outputs[index] is inputs[0]:
                    place.norm = module
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            outputs[len(places)] = output
            places.append(_Place(module))

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    try:
        network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return places


def _factor(folded: Tensor, weight: Tensor) -> Tensor | None:
    """Return the factors (O,) between the module's weights and the graph's; 0 for channels of zeros.

    None if the graph's weights are no multiple of the module's.
    """
    if folded.shape != weight.shape:
        return None
    rows, own = folded.flatten(1).double(), weight.detach().flatten(1).double()
    factor = (rows * own).sum(1) / (own * own).sum(1).clamp_min(1e-30)
    if (rows - factor[:, None] * own).abs().max() > TOLERANCE * rows.abs().max().clamp_min(1e-30):
        return None
    return factor.float()


def _add_to_bias(place: _Place, change: Tensor, factor: Tensor) -> None:
    """Add the change of the graph's bias, divided by the factor that the export applies to the module's bias."""
    if place.norm is not None:
        norm = place.norm
        assert norm.running_var is not None
        own = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        scale = torch.where(own.abs() > 0, factor / torch.where(own == 0, 1.0, own), 0.0)
        scale = torch.where(scale == 0, 1.0, scale)  # a channel of zeros: only its bias remains
        norm.bias.add_(change / scale)
        return
    scale = torch.where(factor == 0, 1.0, factor)
    if place.layer.bias is None:
        place.layer.bias = nn.Parameter(torch.zeros_like(change))
    place.layer.bias.add_(change / scale)
