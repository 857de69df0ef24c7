"""Run the command line on invalid, damaged and malicious files and check that each ends in a clear error.

    inputs     number of distinct files
    answered   number of those that end with exit code 1 or 2 within the limits of time and memory, with only
               "compress: …" lines that name the file, no traceback, and no files written

Images in unusual but valid formats (CMYK, 16 bits, palette, transparency, animation, rotated by EXIF) must be read;
they are counted with the images. Folders as other tools leave them must be read as well. The last line is JSON.

    make test-hostile
    python tests/hostile/hostile.py recipes bundles    # only these kinds
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bad_bundles
import bad_checkpoints
import bad_documents
import bad_folders
import bad_models
import bad_pictures
import bad_recipes
import bad_splits
import bad_structures
from case import Case
from click.testing import CliRunner

from compress.cli.main import commands

KINDS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "recipes": bad_recipes.recipes, "code": bad_recipes.code, "pictures": bad_pictures.pictures,
    "models": bad_models.models, "checkpoints": bad_checkpoints.checkpoints, "manifests": bad_documents.manifests,
    "reports": bad_documents.reports,
    "bundles": bad_bundles.bundles, "sweeps": bad_recipes.sweeps, "inventories": bad_recipes.inventories,
    "splits": bad_splits.splits, "run folders": bad_splits.run_folders,
    "folders": bad_folders.folders, "records": bad_structures.records,
    "settings": bad_structures.settings,
}  # fmt: skip
ALLOWED_S = 600  # also on a busy machine; an endless loop would take longer
ALLOWED_BYTES = 2 << 30  # growth of the process over all inputs
MAX_LINES = 21
VERDICTS = (0, 3, 4)  # exit codes of commands that did their work


def main() -> None:
    """Try all inputs; print each problem, the counts by kind, and JSON."""
    warnings.simplefilter("ignore")
    seen: set[bytes] = set()
    inputs, answered = Counter[str](), Counter[str]()
    before = peak_bytes()
    with tempfile.TemporaryDirectory(prefix="compress-hostile-") as name:
        for kind, make in KINDS.items():
            if sys.argv[1:] and kind not in sys.argv[1:]:
                continue
            start = time.monotonic()
            for case in make(Path(name) / kind):
                if case.content in seen:
                    continue
                seen.add(case.content)
                inputs[kind] += 1
                problem = tried(case)
                answered[kind] += problem is None
                if problem:
                    print(f"{kind}: {case.name}: {problem}", flush=True)
            print(
                f"{kind:<14} {answered[kind]} of {inputs[kind]} answered, {time.monotonic() - start:.0f} s", flush=True
            )
    grown = peak_bytes() - before
    print(f"memory         grew by {grown / 2**20:.0f} MiB; {ALLOWED_BYTES / 2**20:.0f} allowed")
    counts = {"inputs": inputs.total(), "answered": answered.total()}
    print(json.dumps(counts))
    sys.exit(counts["inputs"] != counts["answered"] or counts["inputs"] < 500 or grown > ALLOWED_BYTES)


def tried(case: Case) -> str | None:
    """Return the problem with the command's reaction to an input, or None."""
    before = snapshot(case.folder)
    try:
        with limited_to(ALLOWED_S):
            done = CliRunner().invoke(commands, case.arguments)
    except TimeoutError:
        return f"no end after {ALLOWED_S} s"
    printed = done.stderr.strip().splitlines()
    if done.exception and not isinstance(done.exception, SystemExit):
        return f"{type(done.exception).__name__}: {done.exception}"
    if case.may_be_right and done.exit_code in VERDICTS:
        return None
    if case.is_right:
        if done.exit_code != 0:
            return f"exit code {done.exit_code}: {printed[-1:]}"
        return None if case.named in done.stdout else f"does not print {case.named}: {done.stdout[-300:]}"
    if done.exit_code not in (1, 2):
        return f"exit code {done.exit_code}"
    lines = [line for line in printed if line.startswith("compress: ")]
    if not lines or "Traceback" in done.stderr or len(lines) > MAX_LINES:
        return f"printed {printed[-3:]}"
    if not any(case.named in line for line in lines):
        return f"does not name {case.named}: {lines[:2]}"
    written = snapshot(case.folder) - before
    return f"wrote {sorted(map(str, written))[:3]}" if written else None


def snapshot(folder: Path) -> set[Path]:
    """Return all paths in a folder except those in its run folder, which a refused run may leave."""
    return {path for path in folder.rglob("*") if "run" not in path.relative_to(folder).parts[:1]}


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def limited_to(seconds: int) -> Iterator[None]:
    """Raise TimeoutError inside the block after `seconds`."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


if __name__ == "__main__":
    main()
