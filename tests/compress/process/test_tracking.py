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
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_curves_of_a_run_that_went_on(tmp_path: Path) -> None:
    for epoch in (1, 2):
        with tracking(("tensorboard",), tmp_path, "mine") as track:
            track("0-train", epoch, {"val_top1": 0.25 * epoch, "lr": 0.5})
    assert scalars(tmp_path / "tensorboard") == {
        "0-train/val_top1": [(1, 0.25), (2, 0.5)], "0-train/lr": [(1, 0.5), (2, 0.5)],
    }  # fmt: skip


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install '.[track]'"
)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_goes_on_with_the_run_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    for epoch in (1, 2):
        with tracking(("mlflow",), tmp_path, "mine") as track:
            track("0-train", epoch, {"val_top1": 0.25 * epoch})
    run_id = json.loads((tmp_path / MLFLOW_FILE).read_text())["run_id"]
    client = mlflow.MlflowClient()
    assert [(one.step, one.value) for one in client.get_metric_history(run_id, "0-train/val_top1")] == [
        (1, 0.25),
        (2, 0.5),
    ]
    assert client.get_run(run_id).info.status == "FINISHED"
    with pytest.raises(KeyError), tracking(("mlflow",), tmp_path, "mine"):
        raise KeyError
    assert client.get_run(run_id).info.status == "FAILED"


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: Any = None) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with (
        pytest.raises(UnavailableError, match="tracking: mlflow needs its package"),
        tracking(("mlflow",), tmp_path, "m"),
    ):
        pass


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path) -> None:
    with tracking((), tmp_path, "mine") as track:
        track("0-train", 1, {"lr": 0.1})
    assert not [*tmp_path.iterdir()]
