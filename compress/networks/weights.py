"""Create a network and load initial weights from safetensors or tensors-only torch files, without executing pickles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from compress.networks import FUSED, PRUNED, WEIGHTS_FILE, architecture, matching, published, weight_files
from compress.networks.channels import RGB, first_layers, take_channels
from compress.networks.fusion import fused
from compress.networks.matching import Candidate, Expected, listed
from compress.networks.shape import take_shape
from compress.networks.sources import PACKAGE, weights_file
from compress.networks.weight_files import Content, Tensors
from compress.recipe import plugins
from runtimes.errors import InputError


@dataclass(frozen=True)
class LoadedWeights:
    """The initialisation of a network. notes: what was chosen, renamed, left out or replaced, one line each.

    random: names of the modules with random instead of loaded weights, `*` for all. pruned: whether the network is
    narrower than its architecture. fused: whether its branches are fused.
    """

    notes: tuple[str, ...] = ()
    random: tuple[str, ...] = ()
    pruned: bool = False
    fused: bool = False


RANDOM = LoadedWeights(random=("*",))


def create(
    config: Any,  # Any: the Config of whichever plug-in of compress/models
    num_classes: int,
    seed: int,
    channels: int = RGB,
) -> nn.Module:
    """Return the network of a recipe's `model` section in eval mode, initialised from the seed or its `weights`."""
    return initialise(config, num_classes, seed, channels)[0]


def initialise(
    config: Any,  # Any: the Config of whichever plug-in of compress/models
    num_classes: int,
    seed: int,
    channels: int = RGB,
) -> tuple[nn.Module, LoadedWeights]:
    """Return the network of `create`, and how it was initialised.

    channels: of its images. A classifier with another number of classes keeps its random weights; the first layers of
    weights for RGB images are adapted to other channels. Raises InputError for a file that can't be
    read or does not fit, UnavailableError where a package is not installed or the download fails.
    """
    torch.manual_seed(seed)
    network = architecture.build(config, num_classes)
    if config.weights is None:
        take_channels(network, channels)
        return network.eval(), RANDOM
    content, notes = _content(config, network)
    pruned, is_fused = (content.metadata.get(key) == "true" for key in (PRUNED, FUSED))
    network = fused(network) if is_fused else network
    classifier = _classifier(config, num_classes, network, is_fused)
    if _reads(content, network, channels):
        take_channels(network, channels)
    family = plugins.load("models", config.arch)
    expected = Expected.of(network, num_classes, getattr(family, "UNUSED_WEIGHTS", ()), pruned)
    expected = replace(expected, classifier=classifier) if classifier else expected
    key = getattr(config, "weights_key", None)  # networks of other packages may not have it
    key = key and key.rstrip(".")
    content, renamed = _renamed(content, expected, key, partial(_converted, family, config, network))
    notes += renamed
    try:
        chosen, others = matching.choose(content, expected, key)
        _require_usable(chosen.tensors, expected.state)
    except InputError as error:
        raise InputError(f"weights: {config.weights}: {error}") from None
    notes += _notes(content, chosen, others, expected, key)
    _load(network, chosen, expected)
    notes += _adapt(network, channels)
    random = dict.fromkeys(name.rpartition(".")[0] for name in chosen.replaced)
    return network.eval(), LoadedWeights(
        tuple(f"weights: {config.weights}: {note}" for note in notes), tuple(random), pruned, is_fused
    )


def _classifier(config: Any, num_classes: int, network: nn.Module, is_fused: bool) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes.

    Empty for built-in networks whose classifier comes last among their layers.
    """
    state = network.state_dict()
    if plugins.origin(config) is None:
        named = getattr(plugins.load("models", config.arch), "classifiers", lambda network: ())
        tensors = (f"{layer}.{end}" for layer in named(network) for end in ("weight", "bias"))
        return frozenset(name for name in tensors if name in state and len(state[name]) == num_classes)
    with torch.random.fork_rng(devices=[]):
        other = architecture.build(config, num_classes + 1)
    others = (fused(other) if is_fused else other).state_dict()
    return frozenset(name for name in state if name in others and state[name].shape != others[name].shape)


def _reads(content: Content, network: nn.Module, channels: int) -> bool:
    """Return whether the file is of a network for images of that many channels."""
    ends = tuple(f"{name}.weight" for name in first_layers(network))
    return any(path.endswith(ends) and tensor.shape[1:2] == (channels,) for path, tensor in content.tensors.items())


def _adapt(network: nn.Module, channels: int) -> list[str]:
    """Let a network with weights for RGB images take others; return notes."""
    layers = first_layers(network)
    if channels == RGB or not layers:
        return []
    changed = take_channels(network, channels)
    if channels != 1:
        how = "zero for the alpha channel, until training changes them"
    elif changed:
        how = "summed over red, green and blue, and normalised, so that only training makes the outputs useful"
    else:
        how = "summed over red, green and blue, which gives the same outputs for grey images"
    return [f"belong to a network for RGB images; the kernels of {listed(layers)} are {how}"]


def _renamed(
    content: Content, expected: Expected, key: str | None, convert: Callable[[Content], Content | None]
) -> tuple[Content, list[str]]:
    """Return the content in the form that fits the network best, and a note if that is not the file's own.

    convert: returns the tensors in the form of the family, None if it has no other.
    """
    fit = _fit(content, expected, key)
    unwrapped = matching.without_wrappers(content)
    if unwrapped is not None and _fit(unwrapped, expected, key) > fit:
        return unwrapped, ["the names of wrappers, such as '_orig_mod.', are removed from the names"]
    if not fit and not expected.narrower:
        form = convert(matching.closest(unwrapped or content, expected, key))
        if form is not None and _fit(form, expected, None):
            return form, ["is converted from another form or image size of the network"]
    return content, []


def _fit(content: Content, expected: Expected, key: str | None) -> int:
    """Return 2 if the content has one network that fits, with its classifier, 1 without that, 0 if none fits."""
    try:
        return 1 if matching.choose(content, expected, key)[0].replaced else 2
    except InputError:
        return 0


def _converted(family: Any, config: Any, network: nn.Module, content: Content) -> Content | None:
    convert = getattr(family, "converted", None)
    return Content(convert(config, network, content.tensors)) if convert else None


def _content(config: Any, network: nn.Module) -> tuple[Content, list[str]]:
    """Return the tensors that `config.weights` names, and notes."""
    path = weights_file(config.weights)
    if path is None:
        return Content(published.tensors(config)), []
    content = weight_files.read(path)
    if path.name == WEIGHTS_FILE and list(path.parent.glob("plan-*.json")):  # of the stage prune of version 0.2.0
        content.metadata[PRUNED] = "true"
    if config.weights.startswith(PACKAGE):
        return _renamed_in_order(content, network)
    return content, []


def _renamed_in_order(content: Content, network: nn.Module) -> tuple[Content, list[str]]:
    """Return another implementation's tensors under this network's names, matched by their order."""
    names, tensors = list(network.state_dict()), content.tensors
    if set(tensors) == set(names) or len(tensors) != len(names):
        return content, []
    renamed = dict(zip(names, tensors.values(), strict=True))
    return Content(renamed), [f"has other names; all {len(names)} tensors are matched by their order"]


def _require_usable(tensors: Tensors, own: Tensors) -> None:
    """Raise InputError for tensors that are no finite numbers, or of quantized weights.

    own: tensors of the network, whose buffers may be integers, too.
    """
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked") or tensor.dtype == own[name].dtype == torch.int64:
            continue
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            kind = "meta" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{name} is {kind}, not a dense tensor of floating-point numbers; save it as float32")
        if not torch.isfinite(tensor.float()).all():
            raise InputError(f"{name} holds NaN or infinity; the training that wrote it diverged")


def _load(network: nn.Module, chosen: Candidate, expected: Expected) -> None:
    """Load the chosen tensors; the classifier's stay as they are where its size differs."""
    tensors = {**expected.state, **chosen.tensors, **{name: expected.state[name] for name in chosen.replaced}}
    if not expected.narrower:
        network.load_state_dict(tensors)
        return
    for name in chosen.replaced:  # the inputs of the classifier are fewer, too
        narrow = chosen.tensors.get(name)
        if narrow is not None:
            tensors[name] = tensors[name][(slice(None), *(slice(size) for size in narrow.shape[1:]))]
    take_shape(network, {name: tensors[name].to(own.dtype) for name, own in expected.state.items()})


def _notes(
    content: Content, chosen: Candidate, others: list[Candidate], expected: Expected, key: str | None
) -> list[str]:
    """Say what was chosen, removed from the names, left out and replaced."""
    notes = []
    if others:
        kind = "averaged weights" if chosen.averaged else "weights"
        places = ", ".join(f"'{other.path}'" for other in others)
        notes.append(f"the {kind} in '{chosen.path}' are used, not those in {places}; weights_key chooses others")
    parts = matching.left_out(content, chosen)
    unfit = [part for part in parts if matching.AVERAGED.search(part) and parts[part] > 1
             and not any(f"{other.path}.".startswith(f"{part}.") for other in others)]  # fmt: skip
    if unfit and key is None and not chosen.averaged:
        notes.append(f"the averaged weights in {listed(map(repr, unfit))} are not used: they do not fit")
    inside = [path for path in content.containers if chosen.prefix.startswith(f"{path}.")]
    removed = chosen.prefix.removeprefix(f"{max(inside, key=len)}." if inside else "")
    if removed:
        notes.append(f"the prefix '{removed}' is removed from the names")
    if parts:
        ignored = listed(f"{part} ({count})" if count > 1 else part for part, count in parts.items())
        notes.append(f"{sum(parts.values())} tensors are left out: {ignored}")
    if expected.narrower:
        kept = [name for name in expected.state if name in chosen.tensors and name not in chosen.replaced]
        narrow = [name for name in kept if chosen.tensors[name].shape != expected.state[name].shape]
        notes.append(f"is of a pruned network: {len(narrow)} tensors are smaller than those of the section `model`")
    if chosen.replaced:
        sizes = {len(chosen.tensors[name]) for name in chosen.replaced if name in chosen.tensors}
        was = f"has {sizes.pop()} outputs" if sizes else "is not in the file"
        names = ", ".join(chosen.replaced)
        notes.append(f"its classifier {was}; {names} start from random values for {expected.classes} classes")
    return notes
