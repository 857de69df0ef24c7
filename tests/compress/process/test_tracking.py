"""Training curves in TensorBoard and MLflow: one run per step, continued after an interruption."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from compress.process.tracking import MLFLOW_FILE, tracking
from runtimes.errors import UnavailableError


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_continues_the_curves_of_a_resumed_stage(tmp_path: Path) -> None:
    for epoch in (1, 2):
        with tracking(("tensorboard",), tmp_path, "mine") as track:
            track("0-train-abc", epoch, {"val_top1": 0.25 * epoch, "lr": 0.5})
    assert scalars(tmp_path / "tensorboard/0-train-abc") == {
        "0-train/val_top1": [(1, 0.25), (2, 0.5)], "0-train/lr": [(1, 0.5), (2, 0.5)],
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_replaces_an_epoch_that_is_logged_again(tmp_path: Path) -> None:
    """A process that is killed between logging an epoch and saving its state repeats the epoch."""
    for epochs in ((1, 2, 3), (3, 4)):
        with tracking(("tensorboard",), tmp_path, "mine") as track:
            for epoch in epochs:
                track("0-train-abc", epoch, {"lr": float(epoch * len(epochs))})
    assert scalars(tmp_path / "tensorboard/0-train-abc") == {"0-train/lr": [(1, 3), (2, 6), (3, 6), (4, 8)]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_separates_the_curves_of_other_settings(tmp_path: Path) -> None:
    for step, lr in (("0-train-abc", 0.5), ("0-train-def", 0.25)):
        with tracking(("tensorboard",), tmp_path, "mine") as track:
            for epoch in (1, 2, 3):
                track(step, epoch, {"lr": lr})
    assert scalars(tmp_path / "tensorboard/0-train-abc") == {"0-train/lr": [(1, 0.5), (2, 0.5), (3, 0.5)]}
    assert scalars(tmp_path / "tensorboard/0-train-def") == {"0-train/lr": [(1, 0.25), (2, 0.25), (3, 0.25)]}


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install '.[track]'"
)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_continues_the_runs_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for epoch in (1, 2):
        with tracking(("mlflow",), tmp_path, "mine") as track:
            track("0-train-abc", epoch, {"val_top1": 0.25 * epoch})
    with tracking(("mlflow",), tmp_path, "mine") as track:
        track("0-train-def", 1, {"val_top1": 0.75})
    ids = json.loads((tmp_path / MLFLOW_FILE).read_text())
    run_id, steps = ids["run_id"], ids["steps"]
    client = mlflow.MlflowClient()
    curves = {
        step: [(metric.step, metric.value) for metric in client.get_metric_history(steps[step], "0-train/val_top1")]
        for step in steps
    }
    assert curves == {"0-train-abc": [(1, 0.25), (2, 0.5)], "0-train-def": [(1, 0.75)]}
    assert client.get_run(steps["0-train-abc"]).info.run_name == "0-train-abc"
    assert client.get_run(steps["0-train-abc"]).data.tags["mlflow.parentRunId"] == run_id
    assert {client.get_run(name).info.status for name in (run_id, *steps.values())} == {"FINISHED"}
    with pytest.raises(KeyError), tracking(("mlflow",), tmp_path, "mine"):
        raise KeyError
    assert client.get_run(run_id).info.status == "FAILED"


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install '.[track]'"
)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_continues_the_run_of_a_folder_without_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.create_experiment("compress"), run_name="mine").info.run_id
    (tmp_path / MLFLOW_FILE).write_text(json.dumps({"run_id": run_id}))
    with tracking(("mlflow",), tmp_path, "mine") as track:
        track("0-train-abc", 1, {"lr": 0.5})
    ids = json.loads((tmp_path / MLFLOW_FILE).read_text())
    assert ids["run_id"] == run_id
    assert client.get_run(ids["steps"]["0-train-abc"]).data.metrics == {"0-train/lr": 0.5}


def test_a_missing_package_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: Any = None) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with (
        pytest.raises(UnavailableError, match="tracking: mlflow needs its package"),
        tracking(("mlflow",), tmp_path, "m"),
    ):
        pass


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    with tracking((), tmp_path, "mine") as track:
        track("0-train-abc", 1, {"lr": 0.1})
    assert not [*tmp_path.iterdir()]
