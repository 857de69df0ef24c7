"""What a manifest tells of a quantization, as tables of text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from runtimes.artifact import Manifest

Table = list[list[str]]


def tables(manifest: Manifest) -> dict[str, Table]:
    """Return tables by their titles: how the file was found, and its layers; none for files of other engines."""
    return {title: table for title, table in of_lineage(manifest.lineage, manifest.scheme or "").items() if table}


def of_lineage(lineage: tuple[dict[str, Any], ...], scheme: str) -> dict[str, Table]:
    """Return the same tables from a manifest's lineage."""
    quantized = next((step for step in lineage if step["step"] == "quantize" and "layers" in step), None)
    if quantized is None:
        return {}
    runs: dict[str, list[dict[str, Any]]] = next((step["runs"] for step in lineage if "runs" in step), {})
    return {
        f"{scheme}: attempts, judged on {quantized['held_out_images']} held-out images": attempts(
            quantized["attempts"]
        ),
        "layers": layers(quantized["layers"], runs),
        "what runs": what_runs(runs) if runs else [],
    }


def attempts(found: list[dict[str, Any]]) -> Table:
    """Return a header, then a line per attempt."""
    lines = [["attempt", "SQNR dB", "agreement", "kept"]]
    for one in found:
        lines.append([one["step"], f"{one['sqnr_db']:.1f}", f"{one['agreement']:.3f}", "yes" if one["kept"] else "no"])
    return lines


def layers(found: list[dict[str, Any]], runs: dict[str, list[dict[str, Any]]]) -> Table:
    """Return a header, then a line per layer.

    limited: output channels that gave up a part of a bit. SQNR dB: of the layer's output, with the errors of all layers
    before it. ms, float ms: of its kernel in the INT8 and in the float32 file, where they could be run.
    """
    times = {precision: times_by_layer(nodes) for precision, nodes in runs.items()}
    lines = [["layer", "kind", "out", "weights", "limited", "SQNR dB", "ms", "float ms"]]
    for one in found:
        noise = one["sqnr_db"]
        is_int8 = one["precision"] == "int8"
        lines.append([
            one["name"][-17:],
            one["op"].removesuffix(" Conv"),
            str(one["outputs"]),
            f"int{one['weight_bits']}" if is_int8 else "float32",
            str(one["limited_channels"]) if is_int8 else "",
            "" if noise is None else f"{noise:.1f}",
            *(_milliseconds(times.get(precision, {}).get(one["name"])) for precision in ("int8", "float32")),
        ])  # fmt: skip
    return lines


def times_by_layer(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Return the milliseconds of each layer's kernel."""
    return {node["layer"]: node["time_ms"] for node in nodes if node["layer"]}


def what_runs(runs: dict[str, list[dict[str, Any]]]) -> Table:
    """Return a header, then a line per file and kind of operator: how many the runtime executes, and their time."""
    lines = [["file", "operators", "count", "ms", "most of it"]]
    for precision, nodes in runs.items():
        for kind in ("integer", "float", "conversion"):
            chosen = [node for node in nodes if node["kind"] == kind]
            if chosen:
                by_op = Counter[str]()
                for node in chosen:
                    by_op[node["op"]] += node["time_ms"]
                most = ", ".join(op for op, _ in by_op.most_common(3))
                lines.append([precision, kind, str(len(chosen)), f"{sum(by_op.values()):.2f}", most])
    return lines


def _milliseconds(time_ms: float | None) -> str:
    return "" if time_ms is None else f"{time_ms:.3f}"
