"""Trace the channels of a network: run it once, and follow the labels of its channels through every operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.pruning.labels import Labels, along, compact, varying
from compress.pruning.operators import Operator, Rules, kept

LAYERS = (nn.Conv2d, nn.Linear)
CLASSES = "the classes"  # why the outputs of the classifier are kept
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d, nn.PReLU, nn.LayerNorm, nn.GroupNorm)


class ChannelTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels of the channels of a network.

    sides: for each layer and norm, in the order of execution, the labels along its inputs (`in`) or outputs (`out`).
    A depthwise convolution and a norm have outputs only. created: names of the layers whose outputs are new channels.
    parameters: labels of bare parameters, in their shapes.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        """Run a network in eval mode on an example (N, C, H, W)."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = Labels()
        self.sides: dict[tuple[str, Literal["out", "in"]], Tensor] = {}
        self.created: dict[str, None] = {}  # an ordered set
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # by id: the tensor, so that its id stays, and its labels
        self._rules = Rules(self.labels, self._labels_of)
        self._running: list[str] = []  # names of the modules that run
        self._inside = 0  # number of running modules with a rule of their own
        self.parameters = {name: self._bare(parameter) for name, parameter in _bare_parameters(network)}
        with torch.no_grad(), self._hooks(network), self:
            logits = network.eval()(example)
        self.labels.keep(self._labels_of(logits), CLASSES)

    def roots(self, labels: Tensor) -> Tensor:
        """Return labels in the same shape, each replaced by that of all those joined with it."""
        distinct, index = torch.unique(labels, return_inverse=True)
        return torch.tensor([self.labels.root(label) for label in distinct.tolist()])[index]

    def kept(self) -> dict[str, str]:
        """Return why the outputs of layers cannot be removed, by the layer's name."""
        outputs = {name: self.sides[name, "out"].tolist() for name in self.created}
        reasons = {name: [self.labels.reason(label) for label in labels] for name, labels in outputs.items()}
        return {name: next(filter(None, each)) for name, each in reasons.items() if any(each)}

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # Any: whatever the operator returns
        """Run an operator, and label its outputs if one of its inputs has labels."""
        result = func(*args, **(kwargs or {}))
        is_labelled = any(id(leaf) in self._tensors for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        if is_labelled and not self._inside:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            module = self._running[-1] if self._running else ""
            for output, labels in zip(outputs, self._rules.outputs(func, args, outputs, module), strict=True):
                self._tensors[id(output)] = output, compact(labels).expand(output.shape)
        return result

    def _labels_of(self, tensor: Tensor) -> Tensor:
        _, labels = self._tensors.get(id(tensor), (tensor, None))
        return kept(tensor) if labels is None else labels

    def _bare(self, parameter: nn.Parameter) -> Tensor:
        labels = self.labels.new(parameter.numel()).reshape(parameter.shape)
        self._tensors[id(parameter)] = parameter, labels
        return labels

    @contextmanager
    def _hooks(self, network: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in network.named_modules():
            handles += [
                module.register_forward_pre_hook(lambda module, inputs, name=name: self._begin(name, module)),
                module.register_forward_hook(
                    lambda module, inputs, output, name=name: self._end(name, module, inputs, output)
                ),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str, module: nn.Module) -> None:
        self._running.append(name)
        self._inside += isinstance(module, (*LAYERS, *NORMS))

    def _end(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._running.pop()
        if not isinstance(module, (*LAYERS, *NORMS)):
            return
        self._inside -= 1
        if self._inside:
            return
        before = self._labels_of(inputs[0])
        if isinstance(module, NORMS):
            after = self._norm(name, module, before)
        else:
            after = self._layer(name, module, before, output)
        self._tensors[id(output)] = output, after

    def _layer(self, name: str, layer: nn.Module, before: Tensor, output: Tensor) -> Tensor:
        dim = output.ndim - 1 if isinstance(layer, nn.Linear) else output.ndim - 3
        inputs = along(before, dim)
        if inputs is None:
            self.labels.keep(before, name)
            inputs = along(kept(before), dim)
            assert inputs is not None
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            outputs = self._grouped(name, layer, inputs)
        else:
            self._add(name, "in", inputs)
            outputs = self._new(name, output.shape[dim])
        shape = [-1 if index == dim else 1 for index in range(output.ndim)]
        return outputs.reshape(shape).expand(output.shape)

    def _grouped(self, name: str, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        """Return the labels of the outputs of a grouped convolution, whose groups stay equally large."""
        if layer.groups == layer.in_channels:  # depthwise
            return self._add(name, "out", inputs.repeat_interleave(layer.out_channels // layer.groups))
        by_group = inputs.reshape(layer.groups, -1)
        self.labels.join(by_group[:1].expand_as(by_group), by_group, name)
        self._add(name, "in", inputs)
        return self._new(name, layer.out_channels // layer.groups, layer.groups)

    def _new(self, name: str, count: int, groups: int = 1) -> Tensor:
        """Return the labels of a layer's outputs, which are the same each time it runs."""
        if (name, "out") not in self.sides:
            self.sides[name, "out"] = self.labels.new(count).repeat(groups)
            self.created[name] = None
        return self.sides[name, "out"]

    def _add(self, name: str, side: Literal["out", "in"], labels: Tensor) -> Tensor:
        if (name, side) in self.sides:  # runs a second time
            self.labels.join(self.sides[name, side], labels, name)
        return self.sides.setdefault((name, side), labels)

    def _norm(self, name: str, norm: nn.Module, before: Tensor) -> Tensor:
        differing = varying(before)
        size = next((len(parameter) for parameter in norm.parameters(recurse=False)), 0)
        dim = differing[0] if differing else 1
        if len(differing) > 1 or before.shape[dim] != size:
            if size != 1 or not isinstance(norm, nn.PReLU):
                self.labels.keep(before, name)
            return before
        labels = along(before, dim)
        assert labels is not None
        if isinstance(norm, nn.GroupNorm) and norm.num_groups > 1:
            by_group = labels.reshape(norm.num_groups, -1)
            self.labels.join(by_group[:1].expand_as(by_group), by_group, name)
        self._add(name, "out", labels)
        return before


def _bare_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that belong to none of the modules with a rule."""
    for prefix, module in network.named_modules():
        if not isinstance(module, (*LAYERS, *NORMS)):
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{prefix}.{name}" if prefix else name, parameter
