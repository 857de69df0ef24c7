"""Rounding with error feedback and bias correction, layer by layer in graph order, on quantized inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, ValueInfoProto

from compress.quantization.correction.activations import Activations
from compress.quantization.correction.channels import Channels, by_channel
from compress.quantization.correction.moments import MAX_DENSE_INPUTS, input_samples, second_moments
from compress.quantization.correction.rounding import (
    error_feedback,
    error_feedback_depthwise,
    error_feedback_of_samples,
)
from compress.quantization.ort_graph import OrtGraph, batches, mixes_images, of_images
from export.head import compared_tensors
from export.layers import (
    LINEAR_OPS,
    IntegerWeights,
    Layer,
    from_rows,
    largest_weight,
    layers_of,
    limits_neighbours,
    row_scales,
    to_rows,
)
from export.quantize import QUANTIZED, Quantized, replace_weights
from export.scheme import Scheme
from export.subgraph import between
from runtimes.console import Console
from runtimes.evalset import EvalSet

Float64 = npt.NDArray[np.float64]
CLAMPED_STRIDE = 4  # one value in four is checked for clamping
# Operators after which the mean of an output still moves with the bias, by the share of unclamped values.
MEAN_KEEPING_OPS = {"Relu", "Clip", "QuantizeLinear", "DequantizeLinear", "MaxPool", "AveragePool", "GlobalAveragePool",
                    "Identity", "Dropout", "Flatten", "Squeeze"}  # fmt: skip
MIN_ACTIVE = 0.25  # lower bound on the share of unclamped outputs by which a bias correction is divided


@dataclass(frozen=True)
class _Step:
    """One quantized tensor (or the logits), computed from earlier quantized tensors.

    layers: the layers to round in this step; each layer is in the first step that runs it. alone: no other layer, float
    or integer, and only MEAN_KEEPING_OPS lie between the inputs and the output, so that the error of the mean of the
    output is that of the bias, times the share of unclamped values.
    """

    output: str
    inputs: tuple[str, ...]
    layers: tuple[str, ...]
    alone: bool


def analytic_bias(layer: Layer, weights: IntegerWeights, mean_input: Float64) -> Float64:
    """Return the bias (O,) that keeps the mean output when inputs have the float network's mean (C,).

    E[W x] - E[Wq x] = (W - Wq) E[x] (Nagel et al., Data-Free Quantization, ICCV 2019, equation 17), ignoring borders.
    """
    taps = layer.kernel[0] * layer.kernel[1]
    mean = np.tile(mean_input.reshape(layer.groups, -1), (1, taps))
    integers = to_rows(weights.integers, layer.axis)
    bias = layer.bias.copy()
    for part in layer.parts():
        error = layer.rows(part) - integers[part].astype(np.float64) * weights.scale[part, None]
        group = np.arange(part.start, part.stop) * layer.groups // len(bias)
        bias[part] += np.einsum("ok,ok->o", error, mean[group])
    return bias


def correct_biases(model: onnx.ModelProto, quantized: Quantized, statistics: Mapping[str, Channels]) -> None:
    """Set the analytic bias of every layer of the quantized model, in place."""
    for name, layer in layers_of(model).items():
        if name in quantized.weights:
            weights = quantized.weights[name]
            bias = analytic_bias(layer, weights, statistics[layer.input].mean)
            replace_weights(quantized, layer, replace(weights, bias=bias), quantized.scheme.int32_bias)


def recover(
    model: onnx.ModelProto,
    quantized: Quantized,
    images: EvalSet,
    statistics: Mapping[str, Channels],
    console: Console,
    in_order: bool = True,
) -> None:
    """Round each layer with error feedback and correct its bias, in place.

    model: the float32 graph that was quantized. statistics: of the float outputs of its layers and of its quantized
    tensors, over the same images. in_order: also correct the mean error that reaches a layer from those before it. That
    helps some networks and harms others, so the search tries both. Activations are kept in a temporary folder.
    """
    layers = layers_of(model)
    steps = list(_steps(quantized, _integer_type(quantized.scheme), compared_tensors(model)))
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs}
    with Activations() as activations:
        recovery = _Recovery(quantized, statistics, activations)
        single = mixes_images(model, quantized.plan.ranged, images)
        recovery.store_images(model.graph.input[0], images, single)
        for index, step in enumerate(steps):
            for name in step.layers:
                recovery.round(layers[name])
                if in_order and not step.alone:
                    recovery.center(layers[name], step)
            mean, active = recovery.compute(step)
            tensor = step.output.removesuffix(QUANTIZED)
            is_known = in_order and step.layers and step.alone and tensor in statistics
            bias = layers[step.layers[0]].bias if is_known else None
            if bias is not None and len(bias) == len(mean):  # a Flatten may make several features of a channel
                recovery.shift_bias(layers[step.layers[0]], (statistics[tensor].mean - mean) / active)
                activations.drop(step.output)
                recovery.compute(step)
            for name in step.inputs:
                if last_use[name] == index:
                    activations.drop(name)
            console.progress("round layers", index + 1, len(steps))


def _integer_type(scheme: Scheme) -> int:
    return TensorProto.INT8 if scheme.signed else TensorProto.UINT8


def _steps(quantized: Quantized, integer_type: int, outputs: tuple[str, ...]) -> Iterator[_Step]:
    """Yield the steps to all quantized tensors, then to the outputs."""
    model = quantized.model
    cuts = {node.output[0]: integer_type for node in model.graph.node if node.op_type == "QuantizeLinear"}
    done: set[str] = set()
    for output in (*cuts, *outputs):
        part = between(model, {name: integer_type for name in cuts if name != output}, [output])
        weighted = [node.name for node in part.graph.node if node.op_type in (*LINEAR_OPS, "MatMul")]
        layers = tuple(name for name in weighted if name in quantized.weights and name not in done)
        done.update(layers)
        alone = len(weighted) == 1 and _keeps_mean(part, weighted[0])
        yield _Step(output, tuple(value.name for value in part.graph.input), layers, alone)


def _keeps_mean(part: onnx.ModelProto, layer: str) -> bool:
    """Return whether all operators after a layer are MEAN_KEEPING_OPS."""
    after: set[str] = set()
    for node in part.graph.node:
        if node.name == layer:
            after.update(node.output)
        elif after.intersection(node.input):
            if node.op_type not in MEAN_KEEPING_OPS:
                return False
            after.update(node.output)
    return True


@dataclass
class _Recovery:
    """A quantized model whose layers are being rounded, with the activations computed so far.

    batch_sizes: images in each stored batch. sizes: the same without those that only fill up a batch of a fixed size.
    """

    quantized: Quantized
    statistics: Mapping[str, Channels]
    activations: Activations
    batch_sizes: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def store_images(self, graph_input: ValueInfoProto, images: EvalSet, single: bool) -> None:
        """Store the normalised images as the graph's input. single: each alone."""
        for batch in batches(images, graph_input.type.tensor_type.shape.dim[0].dim_value or None, single):
            self.activations.append(graph_input.name, batch)
            self.batch_sizes.append(len(batch))
            self.sizes.append(1 if single else min(len(batch), len(images) - sum(self.sizes)))

    def round(self, layer: Layer) -> None:
        """Round a layer's weights with error feedback and set its analytic bias."""
        scale, zero_point = self.quantized.scales[layer.input]
        source = layer.input
        while source in self.quantized.plan.rescaled:  # the same integers with another scale
            source, _ = self.quantized.plan.rescaled[source]
        stored = self.activations.batches(source + QUANTIZED)
        inputs = (
            of_images(values, *sizes) for values, *sizes in zip(stored, self.batch_sizes, self.sizes, strict=True)
        )
        row_scale = row_scales(layer, self.quantized.scheme.sums, scale)
        if layer.inputs > MAX_DENSE_INPUTS:
            samples = input_samples(layer, inputs, scale, zero_point)
            rows = _round_many_inputs(layer, row_scale, samples, self.quantized.scheme)
        else:
            rows = _round_rows(
                layer, row_scale, *second_moments(layer, inputs, scale, zero_point), self.quantized.scheme
            )
        weights = IntegerWeights(np.asarray(from_rows(rows, layer.weight.shape, layer.axis)), row_scale, layer.bias)
        bias = analytic_bias(layer, weights, self.statistics[layer.input].mean)
        replace_weights(self.quantized, layer, replace(weights, bias=bias), self.quantized.scheme.int32_bias)

    def center(self, layer: Layer, step: _Step) -> None:
        """Shift a layer's bias so that the mean of its output, before any activation, is that of the float network.

        Empirical bias correction (Nagel et al., Data-Free Quantization, ICCV 2019, appendix D).
        """
        part = between(
            self.quantized.model, dict.fromkeys(step.inputs, _integer_type(self.quantized.scheme)), [layer.output]
        )
        names, graph = [value.name for value in part.graph.input], OrtGraph(part)
        total, count = np.zeros(len(layer.bias)), 0
        sizes = zip(self.batch_sizes, self.sizes, strict=True)
        for (batch, size), *values in zip(sizes, *map(self.activations.batches, names), strict=True):
            output = graph.run(dict(zip(names, values, strict=True)))[layer.output]
            flat = by_channel(of_images(output, batch, size))
            total += flat.sum(axis=2, dtype=np.float32).sum(0, dtype=np.float64)
            count += flat.shape[0] * flat.shape[2]
        self.shift_bias(layer, self.statistics[layer.output].mean - total / count)

    def shift_bias(self, layer: Layer, shift: Float64) -> None:
        """Add `shift` (O,) to a layer's bias."""
        weights = self.quantized.weights[layer.name]
        replace_weights(
            self.quantized, layer, replace(weights, bias=weights.bias + shift), self.quantized.scheme.int32_bias
        )

    def compute(self, step: _Step) -> tuple[Float64, Float64]:
        """Compute and store a step's tensor for all images; return each channel's mean and unclamped share (C,)."""
        inputs = dict.fromkeys(step.inputs, _integer_type(self.quantized.scheme))
        graph = OrtGraph(between(self.quantized.model, inputs, [step.output]))
        scale, zero_point = self.quantized.scales.get(step.output.removesuffix(QUANTIZED), (1.0, 0))
        total, clamped, count, checked = 0.0, 0.0, 0, 0
        sizes = zip(self.batch_sizes, self.sizes, strict=True)
        for (batch, size), *values in zip(sizes, *map(self.activations.batches, step.inputs), strict=True):
            output = graph.run(dict(zip(step.inputs, values, strict=True)))[step.output]
            self.activations.append(step.output, output)
            flat = by_channel(of_images(output, batch, size))
            dtype = np.float32 if flat.dtype == np.float32 else np.int32
            total += flat.sum(axis=2, dtype=dtype).sum(0, dtype=np.float64)
            count += flat.shape[0] * flat.shape[2]
            if step.output.endswith(QUANTIZED):
                some, limits = flat[:, :, ::CLAMPED_STRIDE], np.iinfo(flat.dtype)
                clamped += ((some == limits.min) | (some == limits.max)).sum(axis=(0, 2))
                checked += some.shape[0] * some.shape[2]
        active = 1 - np.asarray(clamped) / max(checked, 1)
        return (np.asarray(total) / count - zero_point) * scale, np.maximum(active, MIN_ACTIVE)


def _round_rows(layer: Layer, scale: Float64, moments: Float64, samples: int, scheme: Scheme) -> npt.NDArray[np.int8]:
    rows, largest = layer.rows(), largest_weight(scheme.sums)
    if layer.depthwise:
        return error_feedback_depthwise(rows, scale, moments, samples, largest)
    per_group, limit = len(rows) // layer.groups, limits_neighbours(layer, scheme.sums)
    return np.concatenate([
        error_feedback(
            rows[start : start + per_group], scale[start : start + per_group], moments[start // per_group], samples,
            largest, limit,
        )
        for start in range(0, len(rows), per_group)
    ])  # fmt: skip


def _round_many_inputs(
    layer: Layer, scale: Float64, samples: npt.NDArray[np.float32], scheme: Scheme
) -> npt.NDArray[np.int8]:
    rows, per_group = to_rows(layer.weight, layer.axis), len(scale) // layer.groups
    limits = largest_weight(scheme.sums), limits_neighbours(layer, scheme.sums)
    parts = [slice(start, start + per_group) for start in range(0, len(scale), per_group)]
    rounded = [error_feedback_of_samples(rows[part], scale[part], sample, *limits)
               for part, sample in zip(parts, samples, strict=True)]  # fmt: skip
    return np.concatenate(rounded) if len(rounded) > 1 else rounded[0]
