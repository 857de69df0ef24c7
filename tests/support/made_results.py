"""Accepted results with chosen predictions and latencies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compress.verdict.accepted import Accepted, Result
from runtimes.target import Target

CLASSES, IMAGES = 10, 5000
RNG = np.random.default_rng(0)
LABELS = np.arange(IMAGES) % CLASSES
RIGHT = np.where(RNG.random(IMAGES) < 0.8, LABELS, (LABELS + 1) % CLASSES)
MS = tuple(tuple(row) for row in np.exp(0.01 * RNG.normal(size=(30, 10))))


def slower(factor: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(factor * value for value in row) for row in MS)


def result(predicted: npt.NDArray[np.int64] = RIGHT, **fields: object) -> Result:
    """Return a result; a file with other predictions has another sha256."""
    defaults = {
        "target": Target("here"), "artifact": "model-int8.onnx",
        "sha256": hashlib.sha256(predicted.tobytes()).hexdigest(), "size_bytes": 1,
        "images": "these", "predicted": tuple(predicted.tolist()), "latency_ms": slower(0.5), "reference_ms": MS,
        "reference_bytes": 4, "sessions": 5, "environment": {"cpu": "this", "python": "3.11"},
    }  # fmt: skip
    return Result(**{**defaults, **fields})  # type: ignore[arg-type]


def accepted(*results: Result, **fields: object) -> Accepted:
    names = tuple(f"class-{label}" for label in range(CLASSES))
    return replace(Accepted("solar", names, tuple(LABELS.tolist()), results or (result(),), "1"), **fields)


def broken(share: float, classes: tuple[int, ...] = tuple(range(CLASSES))) -> npt.NDArray[np.int64]:
    """Return the predictions with a share of the right ones of some classes made wrong."""
    hit = (RIGHT == LABELS) & np.isin(LABELS, classes) & (np.random.default_rng(1).random(IMAGES) < share)
    return np.where(hit, (LABELS + 2) % CLASSES, RIGHT)


def written(path: Path, content: Accepted) -> Path:
    """Write accepted results to a file."""
    path.write_text(json.dumps(asdict(content)))
    return path
