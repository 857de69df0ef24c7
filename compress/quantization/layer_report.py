"""Report of a quantization layer by layer: precision, limited weights, and noise of the outputs."""

from __future__ import annotations

import numpy as np

from compress.quantization.ort_graph import OrtGraph, batches
from compress.quantization.search.candidates import Candidate, Search
from export.layers import layers_of, limits_neighbours, row_scales, to_rows
from export.quantize import DEQUANTIZED
from export.subgraph import with_outputs
from runtimes.errors import InputError
from runtimes.lineage import QuantizedLayer

IMAGES = 16


def describe_layers(best: Candidate, search: Search) -> list[QuantizedLayer]:
    """Return a record of each layer.

    sqnr_db: of the tensor that the layer writes (after Relu or Clip), including the errors of all layers before it.
    limited_channels: output channels whose scale is larger than their weights need, so that no two products can
    overflow 16 bits.
    """
    layers = layers_of(best.graph.model)
    written = {name: _written(best, layer.output) for name, layer in layers.items()}
    noise = _sqnr_db(best, search, sorted({tensor for tensor in written.values() if tensor}))
    records = []
    for name, layer in layers.items():
        op, sqnr_db = "depthwise Conv" if layer.depthwise else layer.op, noise.get(written[name] or "")
        if name in best.quantized.weights:
            input_scale = best.quantized.scales[layer.input][0]
            unlimited = row_scales(layer, "exact", input_scale)
            used = row_scales(layer, search.scheme.sums, input_scale)
            largest = np.abs(to_rows(best.quantized.weights[name].integers.astype(np.int32), layer.axis)).max()
            records.append(QuantizedLayer(
                name, op, len(layer.bias), sqnr_db, "int8",
                weight_bits=8 if largest > 64 else 7,
                limited_channels=int((used > unlimited * 1.0001).sum()),
                neighbours_limited=limits_neighbours(layer, search.scheme.sums),
            ))  # fmt: skip
        else:
            records.append(QuantizedLayer(name, op, len(layer.bias), sqnr_db, "float32"))
    return records


def _written(best: Candidate, output: str) -> str | None:
    """Return the quantized tensor that holds a layer's output, None if the output stays float."""
    clamped = {source: name for name, source in best.quantized.plan.clamps.items()}
    name = clamped.get(output, output)
    return name if name in best.quantized.plan.range_of else None


def _sqnr_db(best: Candidate, search: Search, tensors: list[str]) -> dict[str, float]:
    """Return 10 log10(signal / noise) of each quantized tensor over a few judged images."""
    images = search.judged.head(IMAGES)
    exact = OrtGraph(with_outputs(best.graph.model, tensors))
    quantized = OrtGraph(with_outputs(best.quantized.model, [f"{name}{DEQUANTIZED}" for name in tensors]))
    signal, noise = dict.fromkeys(tensors, 0.0), dict.fromkeys(tensors, 1e-30)
    for batch in batches(
        images, exact.fixed_batch or 1
    ):  # one image at a time: all tensors of both graphs are in memory
        expected, actual = exact.run({exact.inputs[0]: batch}), quantized.run({quantized.inputs[0]: batch})
        for name in tensors:
            signal[name] += float(np.square(expected[name], dtype=np.float32).sum(dtype=np.float64))
            error = expected[name] - actual[f"{name}{DEQUANTIZED}"]
            noise[name] += float(np.square(error).sum(dtype=np.float64))
    for name, power in signal.items():
        if not np.isfinite(power):
            raise InputError(f"tensor {name} is NaN or infinite for an image that runs alone; repair the model first")
    return {name: round(10 * float(np.log10(max(signal[name], 1e-30) / noise[name])), 2) for name in tensors}
