"""A sweep whose runs are made up: accuracy and latency follow from the settings. Run it to work on a sweep's folder."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from consoles import RecordingConsole
from made_report import one_row

from compress.sweep import search as sweep
from runtimes.errors import CompressError

PAUSE_S = 0.15


def made_run(recipe: Path, settings: dict[str, str], folder: Path, cache: Path, pause_s: float = 0.0) -> None:
    """Stand in for `sweep._run`: write a report as of a run with those settings; lr 0.5 does not converge."""
    time.sleep(pause_s)
    lr, width = float(settings["stages.0.lr"]), float(settings["model.width"])
    if lr == 0.5:
        raise CompressError("stages.0: the loss is NaN")
    folder.mkdir(parents=True, exist_ok=True)
    report = one_row("this-cpu", 0.9 - abs(lr - 0.01) - 0.1 / width, width, int(1e6 * width))
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    (folder / "recipe.yaml").write_text(f"settings: {json.dumps(settings)}\n")


if __name__ == "__main__":
    file, out = Path(sys.argv[1]), Path(sys.argv[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_run", lambda *given: made_run(*given, pause_s=PAUSE_S))
        sweep.run(file, sweep.load(file), out, None, RecordingConsole(on_say=partial(print, flush=True)))
