"""Small artifacts and evaluation sets of 4 x 4 pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

CLASSES = ("cat", "dog", "owl")
BUNDLE_LOGITS = ((3, 1, 0), (0, 2, 1), (1, 0, 4), (0.0, 0.1, 0))  # of the last image, two classes are 0.1 apart
PREPROCESSING = Preprocessing(resize=5, crop=4, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """Return a maker of manifests; its keywords replace fields."""

    def make(**fields: Any) -> Manifest:
        side = fields.get("preprocessing", PREPROCESSING).crop
        usual: dict[str, Any] = {
            "sha256": "0" * 64,
            "size_bytes": 1,
            "format": "fake",
            "precision": "float32",
            "input_name": "images",
            "input_shape": (None, 3, side, side),
            "output_name": "logits",
            "preprocessing": PREPROCESSING,
            "labels": CLASSES,
        }
        return Manifest(**{**usual, **fields})

    return make


@pytest.fixture
def fake_artifact(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> Callable[..., Artifact]:
    """Return a maker of fake artifacts on disk: `(name, logits, latency_ms, **manifest fields)`."""

    def make(name: str = "a.fake", logits: Any = ((1, 0, 0),), latency_ms: float = 0.0, **fields: Any) -> Artifact:
        path = tmp_path / name
        path.write_text(json.dumps({"latency_ms": latency_ms, "logits": np.asarray(logits).tolist()}))
        manifest = make_manifest(sha256=sha256_file(path), size_bytes=path.stat().st_size, **fields)
        artifact = Artifact(path, manifest)
        artifact.save_manifest()
        return artifact

    return make


@pytest.fixture
def make_evalset(tmp_path: Path) -> Callable[..., EvalSet]:
    """Return a maker of evaluation sets with `count` seeded random images, by default with labels."""

    def make(count: int = 6, labelled: bool = True, preprocessing: Preprocessing = PREPROCESSING) -> EvalSet:
        random = np.random.default_rng(7)
        side = preprocessing.crop
        images = random.integers(0, 256, (count, side, side, 3), np.uint8)
        labels = random.integers(0, len(CLASSES), count) if labelled else None
        names = tuple(f"image{index}.png" for index in range(count))
        return evalset.write(tmp_path / "evalset", images, labels, names, CLASSES, preprocessing)

    return make


@pytest.fixture
def packed(
    fake_artifact: Callable[..., Artifact], make_evalset: Callable[..., EvalSet], tmp_path: Path
) -> Callable[..., Path]:
    """Return a maker of bundles; keywords are fields of the manifest."""

    def make(name: str = "out.tar", **fields: object) -> Path:
        sample = make_evalset(count=4)
        artifact = fake_artifact(logits=BUNDLE_LOGITS, **fields)
        write_bundle(artifact, Target("board", runtime="fake"), tmp_path / "evalset", sample, tmp_path / name)
        return tmp_path / name

    return make
