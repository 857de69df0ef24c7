"""Find the tensors of a network in the content of a file of weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from compress.networks.weight_files import Content, Tensors
from runtimes.errors import InputError

AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|average|averaged|polyak|shadow)(?:$|[._\d])", re.IGNORECASE)
COUNTERS = ("n_averaged", "num_updates", "updates", "step", "steps", "global_step", "epoch", "decay", "initted")
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
MAX_NAMED = 4


@dataclass(frozen=True)
class Expected:
    """The tensors that a network needs. state: its state_dict. classifier: names of the tensors of its last layer."""

    state: Tensors
    classes: int
    classifier: frozenset[str]
    unused: tuple[str, ...] = ()
    narrower: bool = False

    @classmethod
    def of(cls, network: nn.Module, classes: int, unused: tuple[str, ...] = (), narrower: bool = False) -> Expected:
        """Describe a network.

        unused: name prefixes of tensors in files that the network does not need. narrower: whether the file is of a
        pruned network, so that tensors may be smaller.
        """
        state = network.state_dict()
        layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        last = [f"{name}.{end}" for name in layers[-1:] for end in ("weight", "bias")]
        outputs = frozenset(name for name in last if name in state and len(state[name]) == classes)
        return cls(state, classes, outputs, unused, narrower)


@dataclass(frozen=True)
class Candidate:
    """The tensors below one prefix of a file, compared with a network.

    tensors: by their names after the prefix. missing, unknown: names that only one of both has. misfits: names of
    tensors of another shape. replaced: names of the classifier's tensors, where the file has none or another size.
    """

    prefix: str
    tensors: Tensors
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misfits: tuple[str, ...]
    replaced: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Return whether the network can be loaded with it."""
        return not (self.missing or self.unknown or self.misfits)

    @property
    def averaged(self) -> bool:
        """Return whether its place in the file says that the weights are an average over training steps."""
        return AVERAGED.search(self.prefix) is not None

    @property
    def path(self) -> str:
        """Return its dotted path in the file."""
        return self.prefix.rstrip(".")


def choose(content: Content, expected: Expected, key: str | None) -> tuple[Candidate, list[Candidate]]:
    """Return the candidate to load and the others that fit too.

    Those with a classifier of the right size come first, then averaged weights if there are raw ones beside them.
    key: dotted path in the file to look below. Raises InputError, without the name of the file, if nothing fits or
    several candidates do.
    """
    found = _candidates(content.tensors if key is None else _below(content, key), expected)
    fitting = [candidate for candidate in found if candidate.fits]
    if not fitting:
        raise InputError(_problem(found[0], expected, content))
    whole = [candidate for candidate in fitting if not candidate.replaced] or fitting
    exact = [candidate for candidate in fitting if candidate.path == key]
    averaged = [candidate for candidate in whole if candidate.averaged]
    for choice in (whole, exact, averaged):
        if len(choice) == 1:
            return choice[0], [candidate for candidate in fitting if candidate is not choice[0]]
    places = ", ".join(f"'{candidate.path}'" for candidate in fitting)
    raise InputError(f"holds several networks that fit: {places}; choose one with weights_key")


def closest(content: Content, expected: Expected, key: str | None) -> Content:
    """Return the tensors below the prefix of the best candidate, without the prefix, whether or not they fit."""
    tensors = content.tensors if key is None else _below(content, key)
    prefix = _candidates(tensors, expected)[0].prefix
    return Content({path[len(prefix) :]: tensor for path, tensor in tensors.items() if path.startswith(prefix)})


def without_wrappers(content: Content) -> Content | None:
    """Return the content without the names of modules that wrap others, for example `features._orig_mod.0.weight`.

    None if there are none, or if two tensors would have the same name.
    """
    tensors = {WRAPPERS.sub("", path): tensor for path, tensor in content.tensors.items()}
    if tensors.keys() == content.tensors.keys() or len(tensors) < len(content.tensors):
        return None
    return Content(tensors, content.containers, content.metadata)


def left_out(content: Content, chosen: Candidate) -> dict[str, int]:
    """Return the tensors of the file that are not loaded: their number by the largest part of the file they fill."""
    parts: Counter[str] = Counter()
    used = {chosen.prefix + name for name in chosen.tensors}
    for path in content.tensors:
        if path not in used:
            components = path.split(".")
            heads = [".".join(components[:length]) for length in range(1, len(components) + 1)]
            parts[next(head for head in heads if not chosen.prefix.startswith(f"{head}."))] += 1
    return dict(parts)


def listed(names: Iterable[str]) -> str:
    """Return the first names, with an ellipsis if there are more."""
    all_names = list(names)
    return ", ".join([*all_names[:MAX_NAMED], *(["…"] if len(all_names) > MAX_NAMED else [])])


def _below(content: Content, key: str) -> Tensors:
    tensors = {path: tensor for path, tensor in content.tensors.items() if path == key or path.startswith(f"{key}.")}
    if not tensors:
        parts = dict.fromkeys(path.split(".")[0] for path in content.tensors)
        inner = dict.fromkeys(container for container in sorted(content.containers) if container not in parts)
        raise InputError(f"weights_key: there is no '{key}' in the file; it has {listed([*parts, *inner])}")
    return tensors


def _candidates(tensors: Tensors, expected: Expected) -> list[Candidate]:
    """Return the comparison for each prefix below which names of the network stand, the best first."""
    common: Counter[str] = Counter()
    for path in tensors:
        parts = path.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in expected.state:
                common[path[: len(".".join(parts[:start])) + (1 if start else 0)]] += 1
    enough = max(common.values(), default=0) / 4
    prefixes = [prefix for prefix, count in common.most_common() if count >= enough] or [""]
    found = [_compare(prefix, tensors, expected) for prefix in prefixes]
    return sorted(found, key=lambda candidate: len(candidate.missing) + len(candidate.unknown) + len(candidate.misfits))


def _compare(prefix: str, tensors: Tensors, expected: Expected) -> Candidate:
    own = {path[len(prefix) :]: tensor for path, tensor in tensors.items() if path.startswith(prefix)}
    own = {name: tensor for name, tensor in own.items() if name in expected.state or not _is_ignored(name, expected)}
    missing = [name for name in expected.state if name not in own and not name.endswith("num_batches_tracked")]
    misfits = [name for name in expected.state if name in own and not _fits(name, own[name], expected)]
    replaced = [name for name in misfits if _is_other_size(name, own[name], expected)]
    if len({len(own[name]) for name in replaced}) > 1 or (not expected.narrower and len(replaced) < len(misfits)):
        replaced = []
    if missing and set(missing) == expected.classifier:  # the file of a network without its head
        replaced, missing = missing, []
    return Candidate(
        prefix,
        {name: tensor for name, tensor in own.items() if name in expected.state},
        tuple(missing),
        tuple(name for name in own if name not in expected.state),
        tuple(name for name in misfits if name not in replaced),
        tuple(replaced),
    )


def _is_ignored(name: str, expected: Expected) -> bool:
    return name.startswith(expected.unused) or name.rpartition(".")[2] in COUNTERS


def _fits(name: str, tensor: torch.Tensor, expected: Expected) -> bool:
    shape, own = tuple(tensor.shape), tuple(expected.state[name].shape)
    if not expected.narrower:
        return shape == own
    if len(shape) != len(own) or any(new > old for new, old in zip(shape, own, strict=True)):
        return False
    return name not in expected.classifier or shape[0] == expected.classes


def _is_other_size(name: str, tensor: torch.Tensor, expected: Expected) -> bool:
    """Return whether only the number of classes of a tensor of the output layer differs.

    Only the last layer can be so: the channels of others are read by the next layer, which would differ as well.
    """
    shape, own = tuple(tensor.shape), tuple(expected.state[name].shape)
    if not shape or len(shape) != len(own) or own[0] != expected.classes or shape[0] == own[0]:
        return False
    if expected.narrower:
        return name in expected.classifier and all(new <= old for new, old in zip(shape[1:], own[1:], strict=True))
    return shape[1:] == own[1:]


def _problem(best: Candidate, expected: Expected, content: Content) -> str:
    """Say why the best candidate does not fit, with names of the network and of the file."""
    if best.missing or best.unknown:
        problem = f"belongs to another network: {len(best.missing)} tensors missing"
        problem += f" ({listed(best.missing)})" if best.missing else ""
        problem += f", {len(best.unknown)} unknown" + (f" ({listed(best.unknown)})" if best.unknown else "")
        return f"{problem}; the file holds {listed(content.tensors)}"
    name = best.misfits[0]
    problem = (
        f"tensors of other shapes: {len(best.misfits)}, for example {name} is {tuple(best.tensors[name].shape)} and "
        f"must be {tuple(expected.state[name].shape)}"
    )
    if all(best.tensors[name].numel() < expected.state[name].numel() for name in best.misfits):
        problem += "; a network that compress pruned is read from the network.safetensors of its run"
    return problem
