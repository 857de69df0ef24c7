"""Read the results of a run for comparison with other runs and accepted files."""

from __future__ import annotations

from pathlib import Path

from compress.report import report
from compress.verdict import accepted
from compress.verdict.accepted import Accepted, Result
from runtimes.errors import InputError
from runtimes.files import read_json
from runtimes.measure import Measurement


def of_run(folder: Path) -> Accepted:
    """Return the results of a finished run; raises InputError if it has no report or splits.json that can be read."""
    content = report.read(folder)
    splits = folder / "splits.json"
    try:
        labels = tuple(read_json(splits)["test"].values())
        return Accepted(
            recipe=content.recipe,
            classes=content.data.classes,
            labels=labels,
            results=tuple(_result(content.measurements_of(target)) for target in content.targets),
            toolkit_version=content.toolkit_version,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise InputError(f"{splits}: can't be read with the report ({reason}); run the recipe again") from error


def accept(folder: Path, out: Path | None) -> Path:
    """Write the results of a run as the accepted results of its recipe; return the file."""
    results = of_run(folder)
    path = out or accepted.default_path(results.recipe)
    accepted.write(path, results)
    return path


def load(path: Path) -> Accepted:
    """Read the results of a run folder or an accepted file; raises InputError for anything else."""
    return of_run(path) if path.is_dir() else accepted.read(path)


def _result(measurements: tuple[Measurement, ...]) -> Result:
    """Return the result of one target: its last artifact, with its first as the reference for latency."""
    reference, last = measurements[0], measurements[-1]
    return Result(
        target=last.target,
        artifact=last.artifact,
        sha256=last.sha256,
        size_bytes=last.size_bytes,
        images=last.evalset_sha256 or "",
        predicted=last.predicted,
        latency_ms=last.latency_ms,
        reference_ms=reference.latency_ms,
        reference_bytes=reference.size_bytes,
        sessions=len(last.timing.blocks_per_session()),
        environment=last.environment,
    )
