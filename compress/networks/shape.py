"""Fit a network to the weights of a narrower network of the same architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from compress.networks.fusion import fusion_method
from runtimes.errors import InputError

STORED = {
    "in_channels": ("in_chs", "in_channels", "in_dim", "dim"),
    "out_channels": ("out_chs", "out_channels", "out_dim", "dim_out"),
    "groups": ("groups",),
}


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
    stored = list(_stored_channels(network))
    for prefix, module in network.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            tensor = tensors[_dotted(prefix, name)]
            module.register_parameter(name, nn.Parameter(_copy(tensor), requires_grad=parameter.requires_grad))
        for name, _ in list(module.named_buffers(recurse=False)):
            if _dotted(prefix, name) in tensors:
                module.register_buffer(name, _copy(tensors[_dotted(prefix, name)]))
        _update_attributes(module)
    for block, name, layer, attribute in stored:
        setattr(block, name, getattr(layer, attribute))
    return network


def _stored_channels(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Yield (block, attribute, layer, attribute of the layer) where a block stores the channels of one of its layers.

    Only of blocks that can be fused, as they read these numbers then. The layer is that with most of them.
    """
    for block in network.modules():
        if fusion_method(block):
            layers = [module for module in block.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
            equal = [[(name, own) for name, own in _names(layer) if vars(block).get(name) == getattr(layer, own)]
                     for layer in layers]  # fmt: skip
            layer, pairs = max(zip(layers, equal, strict=True), key=lambda each: len(each[1]), default=(block, []))
            yield from ((block, name, layer, own) for name, own in pairs)


def _names(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the usual names under which blocks store channel counts, with the attribute of the layer."""
    for own, names in STORED.items():
        yield from ((name, "num_features" if isinstance(layer, nn.BatchNorm2d) else own) for name in names)


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
