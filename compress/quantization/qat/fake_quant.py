"""Trainable PyTorch network of a float32 ONNX graph, with fake quantization where the INT8 file has Q/DQ pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from compress.quantization.qat.operators import compute
from export.layers import LARGEST_NEIGHBOUR_SUM, SMALLEST_RANGE, Layer, largest_weight, layers_of, limits_neighbours
from export.plan import plan_quantization
from export.quantize import activation_scale
from export.scheme import Scheme
from runtimes.errors import CompressError

IMAGES = 2
TOLERANCE = 1e-2  # of the largest output: float32 sums in another order
ON_DEVICE = (torch.float32, torch.bool)  # types of constants that are no sizes, axes or indices


class FakeQuantNetwork(nn.Module):
    """Computes a float32 ONNX graph in PyTorch and rounds weights and activations as `export.quantize` does.

    Weights and biases are parameters in the file's shapes, with BatchNorm folded: its statistics are frozen from the
    first step, since they would be computed from rounded activations (Krishnamoorthi, 2018, section 3.2.3). Each
    quantized tensor has a learned step size (Esser et al., LSQ, ICLR 2020). The parameter is its logarithm, so that one
    learning rate suits all tensors (Jain et al., TQT, MLSys 2020, section 3.5). The zero point is fixed, so that 0
    stays exact. Weight scales follow the weights, so that `export.layers.nearest` gives the weights used in training.
    Rounding has a straight-through gradient.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        scheme: Scheme,
        ranges: Mapping[str, tuple[float, float]],
        modules: Mapping[str, str] | None = None,
    ) -> None:
        """Initialize weights from the graph and step sizes from the ranges of its tensors.

        modules: name of the module of the exported network that each layer of the graph comes from. If given, a layer
        that comes from none is not trained.
        """
        super().__init__()
        self._modules_of_layers = dict(modules or {})
        self._graph, self._scheme = model, scheme
        self._plan = plan_quantization(model, scheme)
        self._layers = layers_of(model)
        self._keys = {name: f"layer{index}" for index, name in enumerate(self._layers)}
        self._step_keys = {name: f"tensor{index}" for index, name in enumerate(self._plan.ranged)}
        self.weights = nn.ParameterDict(
            {self._keys[name]: _parameter(layer.weight) for name, layer in self._layers.items()}
        )
        self.biases = nn.ParameterDict(
            {self._keys[name]: _parameter(layer.bias) for name, layer in self._layers.items()}
        )
        for name, key in self._keys.items():
            is_trained = modules is None or name in modules
            self.weights[key].requires_grad_(is_trained)
            self.biases[key].requires_grad_(is_trained)
        scales = {name: activation_scale(*ranges[name], scheme.signed) for name in self._plan.ranged}
        self.log_steps = nn.ParameterDict(
            {self._step_keys[name]: _parameter(math.log(scale)) for name, (scale, _) in scales.items()}
        )
        self._zero_points = {name: zero for name, (_, zero) in scales.items()}
        self._constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in model.graph.initializer
            if not any(tensor.name in node.input[1:] for node in model.graph.node if node.name in self._layers)
        }
        self.rounding = True

    def recipe_modules(self) -> dict[str, nn.Module]:
        """Return the weights and biases of each module of the exported network, whose BatchNorms are folded into them.

        The step sizes belong to none.
        """
        parameters: dict[str, list[nn.Parameter]] = {}
        for layer, module in self._modules_of_layers.items():
            parts, key = module.split("."), self._keys[layer]
            for length in range(1, len(parts) + 1):
                parameters.setdefault(".".join(parts[:length]), []).extend((self.weights[key], self.biases[key]))
        return {name: nn.ParameterList(members) for name, members in parameters.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of (N, C, H, W) float32 images."""
        exact: dict[str, Tensor] = {self._graph.graph.input[0].name: images}
        exact |= {name: value.to(images.device) if value.dtype in ON_DEVICE else value
                  for name, value in self._constants.items()}  # fmt: skip
        rounded = {name: self._round(name, value) for name, value in exact.items() if name in self._plan.range_of}
        for node in self._graph.graph.node:
            inputs = [
                rounded[tensor] if tensor in rounded and (node.name, index) not in self._plan.raw_reads
                else exact.get(tensor)
                for index, tensor in enumerate(node.input)
            ]  # fmt: skip
            for name, output in zip(node.output, self._compute(node, inputs), strict=False):
                output = output.to(images.device) if output.dtype in ON_DEVICE else output
                exact[name] = output
                if name in self._plan.range_of:
                    rounded[name] = self._round(name, output)
        return exact[self._graph.graph.output[0].name]

    def learned_ranges(self) -> dict[str, tuple[float, float]]:
        """Return the range of each tensor for which `activation_scale` returns the learned step size."""
        ranges = {}
        for name, key in self._step_keys.items():
            step, zero = float(self.log_steps[key].detach().exp()), self._zero_points[name]
            ranges[name] = (-127 * step, 127 * step) if self._scheme.signed else (-zero * step, (255 - zero) * step)
        return ranges

    def trained(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the trained weight and bias of each layer, by its name in the graph."""
        return {name: (self.weights[key].detach(), self.biases[key].detach()) for name, key in self._keys.items()}

    def _compute(self, node: NodeProto, inputs: list[Tensor | None]) -> list[Tensor]:
        if node.name not in self._layers:
            return compute(node, inputs)
        layer, key = self._layers[node.name], self._keys[node.name]
        weight, value = self.weights[key], inputs[0]
        assert value is not None
        if self.rounding and node.name in self._plan.integer_nodes:
            weight = weight + (rounded_weight(layer, weight.detach(), self._scheme) - weight.detach())
        return [_layer(layer, value, weight, self.biases[key])]

    def _round(self, name: str, value: Tensor) -> Tensor:
        if not self.rounding:
            return value
        owner = self._plan.range_of[name]
        lowest, highest = (-128, 127) if self._scheme.signed else (0, 255)
        return learned_step(
            value, self.log_steps[self._step_keys[owner]].exp(), self._zero_points[owner], lowest, highest
        )


@torch.no_grad()
def require_same_outputs(rounded: FakeQuantNetwork, network: nn.Module, example: Tensor) -> None:
    """Raise CompressError if the graph without rounding does not compute what the network computes.

    example: (N, C, H, W); only its shape matters.
    """
    images = torch.randn(IMAGES, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    rounded.rounding = False
    outputs, expected = rounded.eval()(images), network.eval()(images)
    rounded.rounding = True
    difference = float((outputs - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not difference <= TOLERANCE:
        raise CompressError(
            f"qat: the exported graph is not computed as the network is: outputs differ by {difference:.2g} of the "
            "largest one; remove the stage qat"
        )


def learned_step(value: Tensor, step: Tensor, zero_point: int, lowest: int, highest: int) -> Tensor:
    """Round to multiples of a learned step (LSQ, equations 1 to 3), with gradients for value and step.

    The step's gradient is scaled by 1 / sqrt(values per image * highest) (section 2.2).
    """
    share = (value[0].numel() * highest) ** -0.5
    size = step * share + (step - step * share).detach()
    scaled = torch.clamp(value / size, lowest - zero_point, highest - zero_point)
    rounded: Tensor = (scaled + (scaled.round() - scaled).detach()) * size
    return rounded


def rounded_weight(layer: Layer, weight: Tensor, scheme: Scheme) -> Tensor:
    """Return a weight in the file's shape, rounded as by `export.layers.nearest` and dequantized."""
    rows = weight.movedim(layer.axis, 0)
    rows = rows.permute(0, *range(2, rows.ndim), 1).reshape(len(rows), -1)
    largest = largest_weight(scheme.sums)
    scale = rows.abs().amax(1) / largest
    if limits_neighbours(layer, scheme.sums):
        even = functional.pad(rows, (0, rows.shape[1] % 2))
        scale = scale.maximum((even[:, ::2] + even[:, 1::2]).abs().amax(1) / (LARGEST_NEIGHBOUR_SUM - 0.5))
    scale = torch.where(scale > SMALLEST_RANGE, scale, 1.0)
    shape = [-1 if dimension == layer.axis else 1 for dimension in range(weight.ndim)]
    scale = scale.reshape(shape)
    rounded: Tensor = (weight / scale).round().clamp(-largest, largest) * scale
    return rounded


def _parameter(value: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float32))  # a copy: the weights of a layer are read-only


def _layer(layer: Layer, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if layer.op == "Gemm":
        return functional.linear(inputs, weight if layer.axis == 0 else weight.T, bias)
    top, left, bottom, right = layer.pads
    padded = functional.pad(inputs, (left, right, top, bottom)) if any(layer.pads) else inputs
    return functional.conv2d(padded, weight, bias, layer.strides, 0, layer.dilations, layer.groups)
