"""Pictures of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILE_NAME = "accuracy_latency.png"
COLOURS = {"float32": "#5b6770", "int8": "#c8501e"}


def accuracy_latency(report: dict[str, Any], path: Path) -> None:
    """Draw top-1 against p50 latency, a point per artifact and target, bars to p90 and over the drop's interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    baseline_top1 = 0.0
    for row in report["rows"]:
        top1, p50 = 100 * row["top1"], row["latency_ms_p50"]
        colour = COLOURS.get(row["precision"], "black")
        drop = row["top1_drop_pp"]
        if drop is None:
            baseline_top1 = top1
        else:
            lowest, highest = baseline_top1 - drop["high"], baseline_top1 - drop["low"]
            axes.plot([p50, p50], [lowest, highest], color=colour, linewidth=1)
        if row["latency_ms_p90"] is not None:
            axes.plot([p50, row["latency_ms_p90"]], [top1, top1], color=colour, linewidth=1)
        axes.plot(p50, top1, "o", color=colour, markersize=8)
        axes.annotate(f"{row['precision']} on {row['target']}", (p50, top1), (8, 8), textcoords="offset points")
    axes.set_xlabel("latency, ms: p50, line to p90 (batch of the target)")
    axes.set_ylabel(f"top-1 %, line: drop at {report['confidence']:.0%} confidence")
    axes.set_xlim(0, 1.5 * max(row["latency_ms_p50"] for row in report["rows"]))  # room for the names
    axes.margins(y=0.25)
    axes.grid(alpha=0.3)
    axes.set_title(f"{report['recipe']}: accuracy against latency")
    figure.savefig(path, format="png")
