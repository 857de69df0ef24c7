"""Fit a network to the weights of a narrower network of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from runtimes.errors import InputError


def take_shape(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Replace all weights by those of a narrower network of the same architecture, in place, and return the network.

    tensors: the narrower network's state_dict. Channel counts that modules store (`out_channels`, …) are updated, too.
    Raises InputError where names differ, or a tensor has other dimensions or is larger than the network's own.
    """
    state = network.state_dict()
    if state.keys() != tensors.keys():
        example = sorted(state.keys() ^ tensors.keys())[0]
        raise InputError(f"the weights are of another network: only one of the two has '{example}'")
    for name, tensor in tensors.items():
        if tensor.ndim != state[name].ndim or any(
            new > old for new, old in zip(tensor.shape, state[name].shape, strict=True)
        ):
            raise InputError(f"the weights don't fit: {name} is {tuple(tensor.shape)}, not {tuple(state[name].shape)}")
    for prefix, module in network.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            tensor = tensors[_dotted(prefix, name)]
            module.register_parameter(name, nn.Parameter(_copy(tensor), requires_grad=parameter.requires_grad))
        for name, _ in list(module.named_buffers(recurse=False)):
            if _dotted(prefix, name) in tensors:
                module.register_buffer(name, _copy(tensors[_dotted(prefix, name)]))
        _update_attributes(module)
    return network


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _update_attributes(module: nn.Module) -> None:
    """Set the channel counts that a module stores to those of its weight."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels
        multiplier = module.out_channels // module.groups
        module.out_channels = module.weight.shape[0]
        if depthwise:
            module.groups = module.out_channels // multiplier
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
        module.num_features = len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
