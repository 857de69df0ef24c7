"""Two results of one recipe, old and new: what got worse, shown and not guessed, for each target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from compress.images.synsets import class_names
from compress.recipe.section import Config
from compress.report import report
from compress.verdict import statistics
from compress.verdict.gate import (
    UNKNOWN_DROP,
    Check,
    Verdict,
    at_least,
    at_most,
    overall,
)
from compress.verdict.statistics import (
    Estimate,
    holm,
    images_to_settle,
    mcnemar,
    ratio_of_speedups,
    top1_drop_pp,
)
from runtimes.clock import Timing
from runtimes.errors import InputError
from runtimes.files import read_json, write_json

SCHEMA_VERSION = 1
ACCEPTED_FOLDER = Path("recipes/accepted")
IGNORED = ("python", "memory_gib")  # of an environment: they change no latency that can be told from noise


class Limits(Config):
    """What a new result may lose against an accepted one; each is judged by a one-sided bound at `confidence`.

    max_top1_drop_pp: percentage points of top-1, and of a class's recall. min_agreement: share of test images that keep
    their answer, where these have no labels. max_slowdown: new / old latency at p50, both
    against the float32 file that was timed with them.
    """

    max_top1_drop_pp: Annotated[float, Field(ge=0, le=100)] = 0.5
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.98
    max_slowdown: Annotated[float, Field(ge=1, le=100)] = 1.1
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


@dataclass(frozen=True)
class Result:
    """What a run ships to one target. labels: None without; images: what tells one set of images from another.

    latency_ms, reference_ms: (blocks, runs) of it and of the float32 file that was timed with it in turns.
    """

    target: dict[str, Any]
    artifact: str
    sha256: str
    size_bytes: int
    images: str
    predicted: tuple[int, ...]
    latency_ms: tuple[tuple[float, ...], ...]
    reference_ms: tuple[tuple[float, ...], ...]
    reference_bytes: int
    sessions: int
    environment: dict[str, Any]


@dataclass(frozen=True)
class Accepted:
    """What identifies a run and its results; the content of recipes/accepted/<recipe>.json."""

    recipe: str
    classes: tuple[str, ...]
    labels: tuple[int | None, ...]
    results: tuple[Result, ...]
    toolkit_version: str
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class ClassDrop:
    """A class whose recall fell by more than the limit, and not by chance: probability, corrected for all classes."""

    name: str
    images: int
    lost: int
    won: int
    probability: float

    @property
    def drop_pp(self) -> float:
        """Return by how many percentage points the class's recall fell."""
        return 100 * (self.lost - self.won) / self.images


@dataclass(frozen=True)
class Compared:
    """One target. notes: what could not be compared and why, and what is odd, one line each."""

    target: str
    checks: tuple[Check, ...]
    top1: tuple[float, float] | None
    agreement: float
    images: int
    mcnemar: float | None
    classes: tuple[ClassDrop, ...]
    notes: tuple[str, ...]
    verdict: Verdict


def of_run(folder: Path) -> Accepted:
    """Return what a finished run ships to each target; raises InputError where there is no report."""
    content = report.read(folder)
    try:
        labels = read_json(folder / "splits.json")["test"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder / 'splits.json'}: can't be read ({error}); run the recipe again") from error
    of_target: dict[str, list[dict[str, Any]]] = {}
    for one in content["measurements"]:
        of_target.setdefault(one["target"]["name"], []).append(one)
    return Accepted(
        recipe=content["recipe"],
        classes=tuple(content["data"]["classes"]),
        labels=tuple(labels.values()),
        results=tuple(_result(members[0], members[-1]) for members in of_target.values()),
        toolkit_version=content["toolkit_version"],
    )


def accept(folder: Path, out: Path | None) -> Path:
    """Write what a run ships as the accepted result of its recipe; return the file."""
    accepted = of_run(folder)
    path = out or ACCEPTED_FOLDER / f"{accepted.recipe}.json"
    write_json(path, asdict(accepted))
    return path


def load(path: Path) -> Accepted:
    """Read a run folder, or a file that `accept` wrote; raises InputError for all else."""
    if path.is_dir():
        return of_run(path)
    try:
        content = read_json(path)
        version = content.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {version}, this toolkit reads {SCHEMA_VERSION}; accept a run again"
            )
        results = tuple(Result(**_with_tuples(one)) for one in content.pop("results"))
        return Accepted(results=results, **_with_tuples(content))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with: compress accept RUN") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an accepted result ({error}); make it with: compress accept RUN") from error


def compare(old: Accepted, new: Accepted, limits: Limits) -> tuple[Compared, ...]:
    """Compare the targets that both have; raises InputError where there are none, or classes differ."""
    if old.classes != new.classes:
        raise InputError(f"the classes differ: {', '.join(old.classes[:5])}, … and {', '.join(new.classes[:5])}, …")
    before = {one.target["name"]: one for one in old.results}
    shared = [one for one in new.results if one.target["name"] in before]
    if not shared:
        raise InputError(f"no target is in both: {', '.join(before)} and "
                         f"{', '.join(one.target['name'] for one in new.results)}")  # fmt: skip
    return tuple(_compared(before[one.target["name"]], one, old, new, limits) for one in shared)


def verdict(compared: tuple[Compared, ...]) -> Verdict:
    """Return the worst verdict of all targets."""
    return overall([check for one in compared for check in one.checks])


def _compared(before: Result, after: Result, old: Accepted, new: Accepted, limits: Limits) -> Compared:
    checks: list[Check] = []
    notes: list[str] = []
    drops: tuple[ClassDrop, ...] = ()
    top1, probability, agreement = None, None, float("nan")
    if before.images != after.images or old.labels != new.labels:
        checks.append(Check("max_top1_drop_pp", limits.max_top1_drop_pp, UNKNOWN_DROP, "inconclusive"))
        notes.append("the test images differ: accuracy is not compared; accept a run on the same images")
    elif None in new.labels:
        same = statistics.agreement(before.predicted, after.predicted, limits.confidence)
        agreement = same.value
        checks.append(at_least("min_agreement", same, limits.min_agreement))
    else:
        one, other, labels = (np.asarray(values) for values in (before.predicted, after.predicted, new.labels))
        agreement = float(np.mean(one == other))
        drop = top1_drop_pp(one, other, labels, limits.confidence)
        checks.append(at_most("max_top1_drop_pp", drop, limits.max_top1_drop_pp))
        top1 = (float(np.mean(one == labels)), float(np.mean(other == labels)))
        probability = mcnemar(*statistics.changes(one, other, labels))
        drops = _class_drops(one, other, labels, new.classes, limits)
        if drops:
            checks.append(Check("class_recall", limits.max_top1_drop_pp, _worst(drops), "regression"))
        notes += _accuracy_notes(drop, len(labels), checks[0], limits)
    different = _differences(before, after)
    if different:
        notes.append(f"latency is not compared, the environments differ: {'; '.join(different)}")
    else:
        checks.append(at_most("max_slowdown", _slowdown(before, after, limits), limits.max_slowdown))
        if before.reference_bytes != after.reference_bytes:
            notes.append("the float32 networks differ: the milliseconds of two sessions are compared as they are")
    return Compared(
        after.target["name"], tuple(checks), top1, agreement, len(new.labels), probability, drops, tuple(notes),
        overall(checks),
    )  # fmt: skip


def _slowdown(before: Result, after: Result, limits: Limits) -> Estimate:
    """Return new / old latency; of the same network's float32 file, what the machine did to a session cancels."""
    same = before.reference_bytes == after.reference_bytes
    sides = [(one.reference_ms if same else np.ones_like(one.latency_ms), one.latency_ms) for one in (before, after)]
    return ratio_of_speedups(sides[0], sides[1], limits.confidence, (before.sessions, after.sessions))


def _accuracy_notes(drop: Estimate, images: int, check: Check, limits: Limits) -> list[str]:
    notes = []
    if check.verdict == "inconclusive":
        needed = images_to_settle(drop, images, limits.max_top1_drop_pp, limits.confidence)
        notes.append(
            f"{images} images can't tell the drop from the limit; "
            + (f"about {needed} would settle it" if needed else "it is the limit itself")
        )
    if -drop.high > limits.max_top1_drop_pp:
        notes.append(f"implausible: better by {-drop.value:.2f} points; were the test images trained on?")
    return notes


def _class_drops(
    one: npt.NDArray[np.int64],
    other: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    limits: Limits,
) -> tuple[ClassDrop, ...]:
    """Return the classes that lost more than the limit by more than chance, tested for all classes at once."""
    shown = class_names(classes)
    present = [label for label in range(len(classes)) if np.any(labels == label)]
    changed = [
        statistics.changes(one[labels == label], other[labels == label], labels[labels == label]) for label in present
    ]
    probabilities = holm([mcnemar(lost, won) for lost, won in changed])
    drops = [
        ClassDrop(shown[label], int(np.sum(labels == label)), lost, won, probability)
        for label, (lost, won), probability in zip(present, changed, probabilities, strict=True)
    ]
    by_chance = 1 - limits.confidence
    return tuple(one for one in drops if one.probability <= by_chance and one.drop_pp > limits.max_top1_drop_pp)


def _worst(drops: tuple[ClassDrop, ...]) -> Estimate:
    value = max(one.drop_pp for one in drops)
    return Estimate(value, value, value)


def _differences(before: Result, after: Result) -> list[str]:
    """Return what latency depends on and is not the same."""
    found = []
    for name, one, other in (
        ("target", before.target, after.target),
        ("environment", before.environment, after.environment),
    ):
        for key in sorted({*one, *other} - {*IGNORED}):
            if one.get(key) != other.get(key):
                found.append(f"{name}.{key} {one.get(key)} and {other.get(key)}")
    return found


def _result(reference: dict[str, Any], shipped: dict[str, Any]) -> Result:
    return Result(
        target=shipped["target"], artifact=shipped["artifact"], sha256=shipped["sha256"],
        size_bytes=shipped["size_bytes"], images=shipped["evalset_sha256"] or "", predicted=tuple(shipped["predicted"]),
        latency_ms=tuple(map(tuple, shipped["latency_ms"])), reference_ms=tuple(map(tuple, reference["latency_ms"])),
        reference_bytes=reference["size_bytes"],
        sessions=len(Timing(**{"sessions": 1, **shipped["timing"]}).shares()),
        environment=shipped["environment"],
    )  # fmt: skip


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(tuple(one) if isinstance(one, list) else one for one in value) if isinstance(value, list) else value
        for name, value in fields.items()
    }
