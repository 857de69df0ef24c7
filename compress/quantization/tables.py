"""What a manifest tells of a quantization, as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runtimes.artifact import Manifest
from runtimes.lineage import Attempt, QuantizedLayer, QuantizeRecord, Record, RuntimeNode, VerifyRecord, find_record

Table = list[list[str]]


def tables(manifest: Manifest) -> dict[str, Table]:
    """Return tables by their titles: how the file was found, and its layers; none for files of other engines."""
    return {title: table for title, table in of_lineage(manifest.lineage, manifest.scheme or "").items() if table}


def of_lineage(lineage: Iterable[Record], scheme: str) -> dict[str, Table]:
    """Return the same tables from a manifest's lineage."""
    quantized, verified = find_record(lineage, QuantizeRecord), find_record(lineage, VerifyRecord)
    if quantized is None or quantized.layers is None:
        return {}
    runs = verified.runs if verified and verified.runs else {}
    return {
        f"{scheme}: attempts, judged on {quantized.held_out_images} held-out images": attempts(
            quantized.attempts or ()
        ),
        "layers": layers(quantized.layers, runs),
        "what runs": what_runs(runs) if runs else [],
    }


def attempts(found: Iterable[Attempt]) -> Table:
    """Return a header, then a line per attempt."""
    lines = [["attempt", "SQNR dB", "agreement", "kept"]]
    for attempt in found:
        lines.append([
            attempt.step, f"{attempt.sqnr_db:.1f}", f"{attempt.agreement:.3f}", "yes" if attempt.kept else "no"
        ])  # fmt: skip
    return lines


def layers(found: Iterable[QuantizedLayer], runs: Mapping[str, Sequence[RuntimeNode]]) -> Table:
    """Return a header, then a line per layer.

    limited: output channels that gave up a part of a bit. SQNR dB: of the layer's output, with the errors of all layers
    before it. ms, float ms: of its kernel in the INT8 and in the float32 file, where they could be run.
    """
    times = {precision: times_by_layer(nodes) for precision, nodes in runs.items()}
    lines = [["layer", "kind", "out", "weights", "limited", "SQNR dB", "ms", "float ms"]]
    for layer in found:
        is_int8 = layer.precision == "int8"
        lines.append([
            layer.name[-17:],
            layer.op.removesuffix(" Conv"),
            str(layer.outputs),
            f"int{layer.weight_bits}" if is_int8 else "float32",
            str(layer.limited_channels) if is_int8 else "",
            "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}",
            *(_milliseconds(times.get(precision, {}).get(layer.name)) for precision in ("int8", "float32")),
        ])  # fmt: skip
    return lines


def times_by_layer(nodes: Iterable[RuntimeNode]) -> dict[str, float]:
    """Return the milliseconds of each layer's kernel."""
    return {node.layer: node.time_ms for node in nodes if node.layer}


def what_runs(runs: Mapping[str, Sequence[RuntimeNode]]) -> Table:
    """Return a header, then a line per file and kind of operator: how many the runtime executes, and their time."""
    lines = [["file", "operators", "count", "ms", "most of it"]]
    for precision, nodes in runs.items():
        for kind in ("integer", "float", "conversion"):
            chosen = [node for node in nodes if node.kind == kind]
            if chosen:
                ms_by_op: dict[str, float] = {}
                for node in chosen:
                    ms_by_op[node.op] = ms_by_op.get(node.op, 0.0) + node.time_ms
                most = ", ".join(sorted(ms_by_op, key=lambda op: -ms_by_op[op])[:3])
                lines.append([precision, kind, str(len(chosen)), f"{sum(ms_by_op.values()):.2f}", most])
    return lines


def _milliseconds(time_ms: float | None) -> str:
    return "" if time_ms is None else f"{time_ms:.3f}"
