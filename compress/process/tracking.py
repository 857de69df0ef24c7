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
Track = Callable[[str, int, dict[str, float]], None]  # name of the step's folder, epoch, values by name

EXPERIMENT = "compress"
MLFLOW_FILE = "mlflow.json"  # IDs of the MLflow runs that a run folder continues
PARENT = "mlflow.parentRunId"  # MLflow's tag for nested runs


@contextmanager
def tracking(trackers: tuple[Tracker, ...], folder: Path, name: str) -> Iterator[Track]:
    """Yield a function that logs values to all trackers; raises UnavailableError if the package of one is missing.

    folder, name: of the run. MLflow logs to MLFLOW_TRACKING_URI, else to its own default. Each step, named by its
    folder (such as `0-train-1f2e3d4c5b6a`), has its own run in TensorBoard and a nested run in MLflow: a resumed stage
    continues its curves, and a stage with other settings has separate ones.
    """
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UnavailableError(f"tracking: {tracker} needs its package: pip install 'compress-classifiers[track]'")
    with ExitStack() as stack:
        loggers = [stack.enter_context(OPENERS[tracker](folder, name)) for tracker in trackers]

        def track(step: str, epoch: int, values: dict[str, float]) -> None:
            for log in loggers:
                log(step, epoch, values)

        yield track


@contextmanager
def _tensorboard(folder: Path, name: str) -> Iterator[Track]:
    from torch.utils.tensorboard import SummaryWriter

    writers: dict[str, SummaryWriter] = {}

    def track(step: str, epoch: int, values: dict[str, float]) -> None:
        if step not in writers:  # purge_step: an epoch that was logged, but not saved, is logged again
            writers[step] = SummaryWriter(str(folder / "tensorboard" / step), purge_step=epoch)
        for key, value in values.items():
            writers[step].add_scalar(f"{_stage(step)}/{key}", value, epoch)
        writers[step].flush()

    try:
        yield track
    finally:
        for writer in writers.values():
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
    ids = json.loads(path.read_text())
    run_id, steps = ids["run_id"], ids.get("steps", {})
    experiment = client.get_run(run_id).info.experiment_id
    client.update_run(run_id, status="RUNNING")
    open_ids = [run_id]

    def track(step: str, epoch: int, values: dict[str, float]) -> None:
        if step not in steps:
            steps[step] = client.create_run(experiment, tags={PARENT: run_id}, run_name=step).info.run_id
            write_json(path, {"run_id": run_id, "steps": steps})
        if steps[step] not in open_ids:
            client.update_run(steps[step], status="RUNNING")
            open_ids.append(steps[step])
        for key, value in values.items():
            client.log_metric(steps[step], f"{_stage(step)}/{key}", value, step=epoch)

    try:
        yield track
    except BaseException:
        for open_id in open_ids:
            client.set_terminated(open_id, "FAILED")
        raise
    for open_id in open_ids:
        client.set_terminated(open_id)


def _stage(step: str) -> str:
    """Return the stage with its index, `0-train`, of a step's folder, `0-train-1f2e3d4c5b6a`."""
    return step.rpartition("-")[0]


OPENERS = {"tensorboard": _tensorboard, "mlflow": _mlflow}
