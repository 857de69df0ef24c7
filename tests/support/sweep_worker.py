"""A sweep with made-up runs whose accuracy and latency follow from the settings; run it to share a sweep's folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from consoles import RecordingConsole
from made_report import one_row

from compress.sweep import search
from runtimes.errors import CompressError


def made_run(
    recipe: Path,
    settings: dict[str, str],
    folder: Path,
    cache: Path,
    show: Callable[[str], None],
    pause_s: float = 0.0,
) -> None:
    """Stand in for `search._run_recipe`: write the report of a run with those settings; lr 0.5 fails."""
    time.sleep(pause_s)
    lr, width = float(settings["stages.0.lr"]), float(settings["model.width"])
    if lr == 0.5:
        raise CompressError("stages.0: the loss is NaN")
    folder.mkdir(parents=True, exist_ok=True)
    report = one_row("this-cpu", 0.9 - abs(lr - 0.01) - 0.1 / width, width, int(1e6 * width))
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    (folder / "recipe.yaml").write_text(f"settings: {json.dumps(settings)}\n")


if __name__ == "__main__":
    file, out, pause_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_run_recipe", partial(made_run, pause_s=pause_s))
        search.run(file, search.load(file), out, None, RecordingConsole(on_say=partial(print, flush=True)))
