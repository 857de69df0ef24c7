"""Log training curves to TensorBoard event files in the run folder and to MLflow."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from runtimes.errors import UnavailableError
from runtimes.files import write_json

Tracker = Literal["tensorboard", "mlflow"]
Track = Callable[[str, int, dict[str, float]], None]  # stage, epoch, values by name

EXPERIMENT = "compress"
MLFLOW_FILE = "mlflow.json"  # ID of the MLflow run that a run folder continues


@contextmanager
def tracking(trackers: tuple[Tracker, ...], folder: Path, name: str) -> Iterator[Track]:
    """Yield a function that logs values to all trackers; raises UnavailableError if the package of one is missing.

    folder, name: of the run. MLflow logs to MLFLOW_TRACKING_URI, else to its own default.
    """
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UnavailableError(f"tracking: {tracker} needs its package: pip install '.[track]'")
    with ExitStack() as stack:
        loggers = [stack.enter_context(OPEN[tracker](folder, name)) for tracker in trackers]

        def track(stage: str, epoch: int, values: dict[str, float]) -> None:
            for log in loggers:
                log(stage, epoch, values)

        yield track


@contextmanager
def _tensorboard(folder: Path, name: str) -> Iterator[Track]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def track(stage: str, epoch: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            writer.add_scalar(f"{stage}/{key}", value, epoch)
        writer.flush()

    try:
        yield track
    finally:
        writer.close()


@contextmanager
def _mlflow(folder: Path, name: str) -> Iterator[Track]:
    import mlflow

    client = mlflow.MlflowClient()
    path = folder / MLFLOW_FILE
    if not path.exists():
        existing = client.get_experiment_by_name(EXPERIMENT)
        experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
        write_json(path, {"run_id": client.create_run(experiment, run_name=name).info.run_id})
    run_id = json.loads(path.read_text())["run_id"]
    client.update_run(run_id, status="RUNNING")

    def track(stage: str, epoch: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            client.log_metric(run_id, f"{stage}/{key}", value, step=epoch)

    try:
        yield track
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


OPEN = {"tensorboard": _tensorboard, "mlflow": _mlflow}
