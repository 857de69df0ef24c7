"""The tables of a report as text, at most 80 columns wide: a header, then a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.report.report import BASELINE_FILE
from runtimes.errors import InputError
from runtimes.files import read_json
from runtimes.measure import Measurement


def measured(report: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Return a table of text for each target by its title: a header, then one line per artifact, the baseline first."""
    labelled = all(row["top1"] is not None for row in report["rows"])
    header = ["artifact", *(["top-1 %", "drop pp"] if labelled else ["same %"]), "MB", "p50 ms", "p90", "p99",
              "speed-up", "verdict"]  # fmt: skip
    found: dict[str, list[list[str]]] = {}
    for row, measurement in zip(report["rows"], report["measurements"], strict=True):
        target, drop, faster = measurement["target"], row["top1_drop_pp"], row["speedup_p50"]
        same = f"{100 * row['agreement']['value']:.2f}" if row.get("agreement") else ""
        threads = f"{target['threads']} thread{'s' if target['threads'] > 1 else ''}"
        title = f"{target['name']}: {target['runtime']} on {target['provider']}, {threads}, batch {target['batch']}"
        found.setdefault(title, [header]).append([
            "uncut" if row["artifact"] == BASELINE_FILE else row["precision"],
            *([f"{100 * row['top1']:.2f}", f"{drop['value'] + 0.0:+.2f}" if drop else ""] if labelled else [same]),
            f"{row['size_bytes'] / 1e6:.2f}",
            f"{row['latency_ms_p50']:.2f}",
            _optional(row["latency_ms_p90"]),
            _optional(row["latency_ms_p99"]),
            f"{faster['value']:.2f}x" if faster else "",
            row["verdict"] or ("no gate" if faster else "baseline"),
        ])  # fmt: skip
    return found


def elsewhere(report: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Return a table of text for each target that isn't at hand, by a title that says so and why."""
    header = ["artifact", "MB", "INT8 layers", "estimate ms"]
    found: dict[str, list[list[str]]] = {}
    for row in report.get("elsewhere", []):
        title = f"{row['target']['name']}: not measured, {row['why']}"
        if row["no_engine"]:
            title += f"; no engine, {row['no_engine']}"
        if row["estimate_ms"] is not None:
            title += f"; {row['device']}: {row['estimate_label']}"
        layers = row["int8_layers"]
        found.setdefault(title, [header]).append([
            "uncut" if row["artifact"].startswith(Path(BASELINE_FILE).stem) else row["artifact"],
            f"{row['size_bytes'] / 1e6:.2f}",
            f"{layers[0]} of {layers[1]}" if layers else "-",
            _optional(row["estimate_ms"]),
        ])  # fmt: skip
    return found


def boards(folder: Path) -> dict[str, list[list[str]]]:
    """Return a table of text for each board that a bundle of the run was deployed to, by its title."""
    found: dict[str, list[list[str]]] = {}
    for path in sorted(folder.glob("boards/*/measurement.json")):
        one = _board_measurement(path)
        cpu, system = one.environment.get("cpu", "unknown"), one.environment.get("system", "unknown")
        found[f"{path.parent.name}: {one.target.runtime} on {one.target.provider}, {cpu}, {system}"] = plain([one])
    return found


def _board_measurement(path: Path) -> Measurement:
    try:
        return Measurement.from_json(read_json(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a measurement ({error}); deploy the bundle again") from error


def plain(measurements: list[Measurement]) -> list[list[str]]:
    """Return measurements as text without judging them: a header, then one line each."""
    lines = [["artifact", "top-1 %", "MB", "p50 ms", "p90", "p99", "images/s"]]
    for one in measurements:
        lines.append([
            one.artifact,
            f"{100 * one.accuracy.top1:.2f}" if one.accuracy else "-",
            f"{one.size_bytes / 1e6:.2f}",
            f"{one.latency_ms_p50:.2f}",
            _optional(one.latency_ms_p90),
            _optional(one.latency_ms_p99),
            f"{one.throughput_images_per_s:.0f}",
        ])  # fmt: skip
    return lines


def _optional(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.2f}"
