"""Upgrade report.json of schema versions 1 to 3 to version 4.

Version 2 added accuracy steps, prediction flips, channels, val_top1 and agreement. Version 3 renamed keys (`falls` to
`accuracy_steps`, `elsewhere` to `unmeasured`, `won` to `gained`, …) and keeps loss and top-1 of each validation only.
Version 4 added notes, the folders and left out files of the data set, and the metrics of imbalanced data.
"""

from __future__ import annotations

from runtimes.files import Json

SCHEMA_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)


def upgraded(fields: Json) -> Json:
    """Return the content of a report.json as version 4 writes it.

    Raises ValueError for an unknown version, KeyError, TypeError or AttributeError for content of the wrong form.
    """
    version = fields["schema_version"]
    if version not in READABLE_VERSIONS:
        known = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} and {READABLE_VERSIONS[-1]}"
        raise ValueError(f"it has schema version {version}, this toolkit reads {known}")
    if version == 1:
        fields = _from_1_to_2(fields)
    if version < 3:
        fields = _from_2_to_3(fields)
    return _from_3_to_4(fields) if version < SCHEMA_VERSION else fields


def _from_1_to_2(fields: Json) -> Json:
    rows = [{"val_top1": None, "agreement": None, **row} for row in fields["rows"]]
    return {"elsewhere": [], "falls": {}, "flips": {}, "channels": {}, **fields, "rows": rows, "schema_version": 2}


def _from_2_to_3(fields: Json) -> Json:
    falls, unmeasured = fields.get("falls", {}), fields.get("elsewhere", [])
    return {
        **{name: value for name, value in fields.items() if name not in ("falls", "elsewhere")},
        "rows": [{"agreement": None, "val_top1": None, **row} for row in fields["rows"]],
        "training": {
            step: [epoch_of_history(epoch) for epoch in epochs] for step, epochs in fields["training"].items()
        },
        "unmeasured": [_renamed(file, {"why": "reason", "no_engine": "no_engine_reason"}) for file in unmeasured],
        "accuracy_steps": {
            target: [_renamed(step, {"won": "gained"}) for step in steps] for target, steps in falls.items()
        },
        "flips": {target: _flips(flips) for target, flips in fields.get("flips", {}).items()},
        "channels": fields.get("channels", {}),
        "schema_version": 3,
    }


def _from_3_to_4(fields: Json) -> Json:
    return {
        **fields,
        "rows": [_with_metrics(row) for row in fields["rows"]],
        "data": {"left_out": [], "folders": {}, **fields["data"]},
        "notes": [],
        "metric": "top1",
        "schema_version": 4,
    }


def _with_metrics(row: Json) -> Json:
    top1, val_top1 = row["top1"], row["val_top1"]
    return {
        **{name: value for name, value in row.items() if name != "val_top1"},
        "metrics": {} if top1 is None else {"top1": top1},
        "val_metrics": {} if val_top1 is None else {"top1": val_top1},
        "metric_drop_pp": row["top1_drop_pp"],
        "notes": [],
    }


def epoch_of_history(epoch: Json) -> Json:
    """Return one epoch of a stage's history.json in the form of the report, with loss and top-1 only."""
    return {
        "epoch": epoch["epoch"],
        "lr": epoch["lr"],
        "train_loss": epoch["train_loss"],
        "val_loss": epoch["val"]["loss"],
        "val_top1": epoch["val"]["top1"],
    }


def _flips(flips: Json) -> Json:
    kinds = {"won": "gained"}
    return {
        "counts": _renamed(flips["counts"], kinds),
        "shown": [{**flip, "kind": kinds.get(flip["kind"], flip["kind"])} for flip in flips["shown"]],
    }


def _renamed(fields: Json, names: dict[str, str]) -> Json:
    return {names.get(name, name): value for name, value in fields.items()}
