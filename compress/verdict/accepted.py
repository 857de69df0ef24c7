"""Accepted results: predictions and latency of a run, stored in recipes/accepted/<recipe>.json."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from runtimes.errors import InputError
from runtimes.files import Json, read_json, write_json
from runtimes.target import Target

SCHEMA_VERSION = 1
ACCEPTED_FOLDER = Path("recipes/accepted")

_Record = TypeVar("_Record", bound=Any)  # a dataclass; mypy has no narrower bound


@dataclass(frozen=True)
class Result:
    """The last artifact that a run made for one target.

    images: sha256 of the test images, empty without. predicted: class of each test image. latency_ms, reference_ms:
    (blocks, runs) of this artifact and of the float32 file that was timed interleaved with it, in `sessions` sessions.
    reference_bytes: size of that float32 file. environment: of the machine, as in the measurement.
    """

    target: Target
    artifact: str
    sha256: str
    size_bytes: int
    images: str
    predicted: tuple[int, ...]
    latency_ms: tuple[tuple[float, ...], ...]
    reference_ms: tuple[tuple[float, ...], ...]
    reference_bytes: int
    sessions: int
    environment: Json  # its keys differ between platforms and versions

    @classmethod
    def from_json(cls, fields: Json) -> Result:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for fields that don't fit."""
        _require_fields(cls, fields)
        result = _validated(cls, {**fields, "target": Target.from_json(fields["target"])})
        for name, blocks in (("latency_ms", result.latency_ms), ("reference_ms", result.reference_ms)):
            runs = {len(block) for block in blocks}
            if len(runs) != 1 or 0 in runs or not all(0 < ms < math.inf for block in blocks for ms in block):
                raise ValueError(f"{name}: needs blocks of positive numbers, equally many in each")
        if len(result.latency_ms) != len(result.reference_ms):
            raise ValueError("latency_ms and reference_ms have different numbers of blocks")
        return result


@dataclass(frozen=True)
class Accepted:
    """The results of a run, one per target. labels: class of each test image, None if unknown."""

    recipe: str
    classes: tuple[str, ...]
    labels: tuple[int | None, ...]
    results: tuple[Result, ...]
    toolkit_version: str
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        names = [result.target.name for result in self.results]
        if len(set(names)) < len(names):
            raise ValueError(f"it has two results of one target: {', '.join(names)}")
        for result in self.results:
            if len(result.predicted) != len(self.labels):
                raise ValueError(
                    f"{result.target.name}: {len(result.predicted)} predictions, {len(self.labels)} labels"
                )

    @classmethod
    def from_json(cls, fields: Json) -> Accepted:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for fields that don't fit."""
        _require_fields(cls, fields)
        results = tuple(Result.from_json(result) for result in fields["results"])
        accepted = _validated(cls, {**fields, "results": results})
        accepted._check_classes()
        return accepted

    def _check_classes(self) -> None:
        """Raise ValueError without images, and for labels and predictions that are not numbers of classes."""
        known = range(len(self.classes))
        if not self.labels:
            raise ValueError("it has no test images")
        if any(label is not None and label not in known for label in self.labels):
            raise ValueError(f"a label is not the number of one of the {len(known)} classes")
        for result in self.results:
            if any(predicted not in known for predicted in result.predicted):
                raise ValueError(f"{result.target.name}: a prediction is not the number of a class")


def _require_fields(kind: type[_Record], fields: Json) -> None:
    """Raise KeyError for the first field that is missing, TypeError for one that a record does not have."""
    known = dataclasses.fields(kind)
    for field in known:
        if field.name not in fields and field.default is dataclasses.MISSING:
            raise KeyError(field.name)
    unknown = fields.keys() - {field.name for field in known}
    if unknown:
        raise TypeError(f"unknown field {min(unknown)}")


def _validated(kind: type[_Record], fields: Json) -> _Record:
    """Return the record of those fields; raises ValueError with the first that has the wrong type."""
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{place}: {problem['msg']}" if place else problem["msg"]) from error


def default_path(recipe: str) -> Path:
    """Return where the accepted results of a recipe are stored."""
    return ACCEPTED_FOLDER / f"{recipe}.json"


def write(path: Path, accepted: Accepted) -> None:
    """Write accepted results as JSON."""
    write_json(path, asdict(accepted))


def read(path: Path) -> Accepted:
    """Read accepted results that `write` wrote; raises InputError for any other file."""
    try:
        content = read_json(path)
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {version}, this toolkit reads {SCHEMA_VERSION}; accept a run again"
            )
        return Accepted.from_json(content)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write it with: compress accept RUN") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not an accepted result ({reason}); write it with: compress accept RUN") from error
