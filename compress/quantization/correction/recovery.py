"""What rounding costs is won back: layer by layer, in the network's order, on inputs that are quantized already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from compress.quantization.correction.activations import Activations
from compress.quantization.correction.channels import Channels
from compress.quantization.correction.moments import second_moments
from compress.quantization.correction.rounding import error_feedback, error_feedback_depthwise
from compress.quantization.ort_graph import Network, batches
from export.layers import (
    WEIGHTED_OPS,
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
from runtimes.clock import Progress
from runtimes.evalset import EvalSet

Float64 = npt.NDArray[np.float64]
CLAMPED_SAMPLE = 4  # of so many values one is looked at
LEAST_ACTIVE = 0.25  # share of unclamped outputs below which a bias is moved as if it were this


@dataclass(frozen=True)
class _Step:
    """One quantized tensor (or the logits) and what it is computed from: quantized tensors that come before it.

    layers: those to round here, each in the first step that runs it. alone: whether no other layer, float ones neither,
    stands between the inputs and the output, so that what the output's mean lacks is what the layer's bias lacks.
    """

    output: str
    inputs: tuple[str, ...]
    layers: tuple[str, ...]
    alone: bool


def analytic_bias(layer: Layer, weights: IntegerWeights, mean_input: Float64) -> Float64:
    """Return the bias (O,) that keeps the mean output if inputs have the float network's mean (C,).

    E[W x] - E[Wq x] = (W - Wq) E[x] (Nagel et al., Data-Free Quantization, ICCV 2019, equation 17), borders apart.
    """
    lost = layer.rows() - _dequantized_rows(layer, weights)
    taps = layer.kernel[0] * layer.kernel[1]
    mean = mean_input.reshape(layer.groups, -1)
    per_row = np.repeat(np.tile(mean, (1, taps)), len(lost) // layer.groups, axis=0)
    bias: Float64 = layer.bias + np.einsum("ok,ok->o", lost, per_row)
    return bias


def correct_biases(
    model: onnx.ModelProto, quantized: Quantized, scheme: Scheme, statistics: Mapping[str, Channels]
) -> None:
    """Give every layer of the quantized model its analytic bias, in place."""
    for name, layer in layers_of(model).items():
        if name in quantized.weights:
            weights = quantized.weights[name]
            bias = analytic_bias(layer, weights, statistics[layer.input].mean)
            replace_weights(quantized, layer, replace(weights, bias=bias), scheme.int32_bias)


def recover(
    model: onnx.ModelProto,
    quantized: Quantized,
    scheme: Scheme,
    images: EvalSet,
    statistics: Mapping[str, Channels],
    progress: Progress,
    parent: Path | None = None,
) -> None:
    """Round each layer with error feedback and correct its bias, in place.

    model: the float32 graph that was quantized. statistics: of the float outputs of its layers and of its quantized
    tensors, over the same images. parent: where the folder of activations is made.
    """
    layers = layers_of(model)
    kind = TensorProto.INT8 if scheme.signed else TensorProto.UINT8
    steps = list(_steps(quantized, kind))
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs}
    with Activations(parent) as stored:
        given = model.graph.input[0]
        sizes: list[int] = []  # without the images that fill up the last of a fixed batch
        for batch in batches(images, given.type.tensor_type.shape.dim[0].dim_value or None):
            stored.append(given.name, batch)
            sizes.append(min(len(batch), len(images) - sum(sizes)))
        for index, step in enumerate(steps):
            for name in step.layers:
                _round_layer(layers[name], quantized, scheme, stored, sizes, statistics)
            mean, active = _run(step, quantized, kind, stored, sizes)
            tensor = step.output.removesuffix(QUANTIZED)
            if step.layers and step.alone and tensor in statistics:
                by = (statistics[tensor].mean - mean) / active
                _move_bias(layers[step.layers[0]], quantized, scheme, by)
                stored.drop(step.output)
                _run(step, quantized, kind, stored, sizes)
            for name in step.inputs:
                if last_use[name] == index:
                    stored.drop(name)
            progress("round layers", index + 1, len(steps))


def _steps(quantized: Quantized, kind: int) -> Iterator[_Step]:
    model = quantized.model
    cuts = {node.output[0]: kind for node in model.graph.node if node.op_type == "QuantizeLinear"}
    done: set[str] = set()
    for output in (*cuts, model.graph.output[0].name):
        part = between(model, {name: kind for name in cuts if name != output}, [output])
        weighted = [node.name for node in part.graph.node if node.op_type in (*WEIGHTED_OPS, "MatMul")]
        layers = tuple(name for name in weighted if name in quantized.weights and name not in done)
        done.update(layers)
        yield _Step(output, tuple(value.name for value in part.graph.input), layers, len(weighted) == 1)


def _round_layer(
    layer: Layer,
    quantized: Quantized,
    scheme: Scheme,
    stored: Activations,
    sizes: list[int],
    statistics: Mapping[str, Channels],
) -> None:
    scale, zero_point = quantized.scales[layer.input]
    source = layer.input
    while source in quantized.plan.rescaled:  # the same integers with another scale
        source, _ = quantized.plan.rescaled[source]
    inputs = (batch[:size] for batch, size in zip(stored.batches(source + QUANTIZED), sizes, strict=True))
    moments, samples = second_moments(layer, inputs, scale, zero_point)
    row_scale = row_scales(layer, scheme.sums, scale)
    rows = _feed_back(layer, row_scale, moments, samples, scheme)
    weights = IntegerWeights(np.asarray(from_rows(rows, layer.weight.shape, layer.axis)), row_scale, layer.bias)
    bias = analytic_bias(layer, weights, statistics[layer.input].mean)
    replace_weights(quantized, layer, replace(weights, bias=bias), scheme.int32_bias)


def _feed_back(layer: Layer, scale: Float64, moments: Float64, samples: int, scheme: Scheme) -> npt.NDArray[np.int8]:
    rows, largest = layer.rows(), largest_weight(scheme.sums)
    if layer.depthwise:
        return error_feedback_depthwise(rows, scale, moments, samples, largest)
    each, limit = len(rows) // layer.groups, limits_neighbours(layer, scheme.sums)
    return np.concatenate([
        error_feedback(rows[at : at + each], scale[at : at + each], moments[at // each], samples, largest, limit)
        for at in range(0, len(rows), each)
    ])  # fmt: skip


def _move_bias(layer: Layer, quantized: Quantized, scheme: Scheme, by: Float64) -> None:
    weights = quantized.weights[layer.name]
    replace_weights(quantized, layer, replace(weights, bias=weights.bias + by), scheme.int32_bias)


def _run(
    step: _Step, quantized: Quantized, kind: int, stored: Activations, sizes: list[int]
) -> tuple[Float64, Float64]:
    """Compute a step's tensor for all images; return per channel its mean and the share of it that is not clamped."""
    network = Network(between(quantized.model, dict.fromkeys(step.inputs, kind), [step.output]))
    scale, zero_point = quantized.scales.get(step.output.removesuffix(QUANTIZED), (1.0, 0))
    total, clamped, count, seen = 0.0, 0.0, 0, 0
    for size, *values in zip(sizes, *(stored.batches(name) for name in step.inputs), strict=True):
        output = network.run(dict(zip(step.inputs, values, strict=True)))[step.output]
        stored.append(step.output, output)
        flat = output[:size].reshape(size, output.shape[1], -1)
        total += flat.sum(axis=2, dtype=np.float32 if flat.dtype == np.float32 else np.int32).sum(0, dtype=np.float64)
        count += flat.shape[0] * flat.shape[2]
        if flat.dtype != np.float32:
            few, ends = flat[:, :, ::CLAMPED_SAMPLE], np.iinfo(flat.dtype)
            clamped += ((few == ends.min) | (few == ends.max)).sum(axis=(0, 2))
            seen += few.shape[0] * few.shape[2]
    active = 1 - np.asarray(clamped) / max(seen, 1)
    return (np.asarray(total) / count - zero_point) * scale, np.maximum(active, LEAST_ACTIVE)


def _dequantized_rows(layer: Layer, weights: IntegerWeights) -> Float64:
    return to_rows(weights.integers.astype(np.float64), layer.axis) * weights.scale[:, None]
