"""What report.html shows, made of report.json: pictures, tables with their values, and images that flipped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from compress.images.synsets import class_names
from compress.pruning import tables as pruning_tables
from compress.quantization import tables as quantization_tables
from compress.report import charts
from compress.report.report import BASELINE_FILE, FLIPPED
from runtimes import conditions
from runtimes.lineage import QuantizedLayer, QuantizeRecord, VerifyRecord, find_record, read_lineage
from runtimes.measure import Measurement
from runtimes.metrics import confusion_rows, images_per_class

MATRIX_CLASSES = 20  # above that, the most frequent confusions are listed instead
CONFUSIONS_SHOWN, WORST_LAYERS = 20, 5
Row = dict[str, Any]


def page(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the template needs; `folder` is the run's, for the recipe and the images that flipped."""
    recipe = folder / "recipe.yaml"
    return {
        "report": report,
        "names": class_names(tuple(report["data"]["classes"])),
        "checks": [(row["target"], check) for row in report["rows"] for check in row["checks"]],
        "targets": [_target(report, folder, name) for name in dict.fromkeys(row["target"] for row in report["rows"])],
        "curves": [picture for name, history in report["training"].items() for picture in _curves(name, history)],
        "plans": [(step, pruning_tables.outcome(plan), pruning_tables.of_plan(plan))
                  for step, plans in report["pruning"].items() for plan in plans],
        "recipe": recipe.read_text() if recipe.exists() else "",
        "chart_style": charts.STYLE,
    }  # fmt: skip


def picture(report: dict[str, Any], rows: list[Row]) -> str:
    """Return accuracy against latency of those rows of the report as SVG."""
    several = len({row["target"] for row in rows}) > 1
    points, baseline = [], 0.0
    for row in rows:
        drop, same = row["top1_drop_pp"], row.get("agreement")
        top1 = 100 * (row["top1"] if row["top1"] is not None else same["value"] if same else 1.0)
        baseline = top1 if drop is None else baseline
        bounds = (baseline - drop["high"], baseline - drop["low"]) if drop else (None, None)
        if row["top1"] is None and same:
            bounds = (100 * same["low"], 100 * same["high"])
        name = "uncut" if row["artifact"] == BASELINE_FILE else row["precision"]
        points.append(charts.Point(
            f"{name} on {row['target']}" if several else name, row["precision"], row["latency_ms_p50"], top1,
            row["latency_ms_p90"], *bounds,
        ))  # fmt: skip
    y_title = "top-1 %" if rows[0]["top1"] is not None else "answers as the baseline's, %"
    return charts.accuracy_latency(f"{report['recipe']}: accuracy against latency", points, y_title)


def _target(report: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
    rows = [row for row in report["rows"] if row["target"] == name]
    taken = [one for one in report["measurements"] if one["target"]["name"] == name]
    layers = _layers(report, taken[-1]["artifact"])
    seen = [layer for layer in layers if layer["sqnr_db"] is not None]
    return {
        "name": name,
        "rows": rows,
        "picture": picture(report, rows),
        "conditions": conditions.lines(Measurement.from_json(one) for one in taken),
        "waterfall": _waterfall(name, report.get("falls", {}).get(name, [])),
        "worst": sorted(seen, key=lambda layer: layer["sqnr_db"])[:WORST_LAYERS],
        "layers": layers,
        "flips": _flips(report.get("flips", {}).get(name), folder),
        "classes": _classes(report, taken),
        "confusions": [
            _confusion(one, len(report["data"]["classes"])) for one in (taken[0], taken[-1]) if one["accuracy"]
        ],
    }


def _waterfall(target: str, falls: list[Row]) -> str | None:
    if not falls:
        return None
    bars, before = [], None
    for fall in falls:
        drop, value = fall["drop_pp"], 100 * fall["top1"]
        note = f"{value:.2f} %"
        if drop:
            note = f"{-drop['value'] + 0.0:+.2f} ({-drop['high']:+.2f} to {-drop['low']:+.2f})"
        bars.append(charts.Bar(fall["name"], value, before, note))
        before = value
    return charts.waterfall(f"{target}: where the points went", bars)


def _layers(report: dict[str, Any], artifact: str) -> list[Row]:
    """Return a row per weighted layer of an artifact: what is known of it, None for the rest."""
    channels = report.get("channels", {})
    lineage = read_lineage(next((one["lineage"] for one in report["artifacts"] if one["file"] == artifact), []))
    quantized = find_record(lineage, QuantizeRecord)
    if quantized is None or quantized.layers is None:
        return [_layer(name, None, was_and_is, {}) for name, was_and_is in channels.items()]
    verified = find_record(lineage, VerifyRecord)
    runs = verified.runs if verified and verified.runs else {}
    times = {precision: quantization_tables.times_by_layer(nodes) for precision, nodes in runs.items()}
    return [_layer(layer.name, layer, channels.get(layer.name), times) for layer in quantized.layers]


def _layer(
    name: str, layer: QuantizedLayer | None, channels: list[int] | None, times: dict[str, dict[str, float]]
) -> Row:
    is_int8 = layer is not None and layer.precision == "int8"
    return {
        "name": name,
        "kind": layer.op if layer else "",
        "before": channels[0] if channels else None,
        "now": channels[1] if channels else (layer.outputs if layer else None),
        "precision": f"int{layer.weight_bits}" if layer and is_int8 else "float32",
        "ms": times.get("int8", {}).get(name),
        "float_ms": times.get("float32", {}).get(name),
        "sqnr_db": layer.sqnr_db if layer else None,
    }


def _flips(found: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    if found is None:
        return None
    shown = [{**flip, "source": _data_uri(folder / FLIPPED / f"{flip['index']}.jpg")} for flip in found["shown"]]
    return {**found, "shown": shown}


def _data_uri(path: Path) -> str | None:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _classes(report: dict[str, Any], taken: list[Row]) -> list[Row]:
    """Return how each class fares in the baseline and in what ships."""
    before, now = taken[0]["accuracy"], taken[-1]["accuracy"]
    if not before or not now:
        return []
    names = class_names(tuple(report["data"]["classes"]))
    images = images_per_class(now["confusion"], len(names))
    return [
        {
            "name": name, "images": images[index], "precision": now["precision"][index],
            "before": before["recall"][index], "now": now["recall"][index],
            "drop_pp": 100 * (before["recall"][index] - now["recall"][index]), "f1": now["f1"][index],
        }
        for index, name in enumerate(names)
    ]  # fmt: skip


def _confusion(one: Row, classes: int) -> dict[str, Any]:
    cells = one["accuracy"]["confusion"]
    most = sorted(((images, true, taken) for true, taken, images in cells if true != taken), reverse=True)
    return {
        "artifact": one["artifact"],
        "matrix": confusion_rows(cells, classes) if classes <= MATRIX_CLASSES else None,
        "most": [(true, taken, images) for images, true, taken in most[:CONFUSIONS_SHOWN]],
    }


def _curves(name: str, history: list[Row]) -> list[str]:
    """Return the curves of one stage: losses, and top-1 on val."""
    if not history:
        return []
    losses = [charts.Curve("train", "float32", [epoch["train_loss"] for epoch in history]),
              charts.Curve("val", "int8", [epoch["val"]["loss"] for epoch in history])]  # fmt: skip
    top1 = charts.Curve("val", "int8", [100 * epoch["val"]["top1"] for epoch in history])
    return [charts.curves(f"{name}: loss", "loss", losses), charts.curves(f"{name}: top-1", "top-1 %", [top1])]
