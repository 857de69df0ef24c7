"""Build TensorRT engines from ONNX artifacts, after checking the graph."""

from __future__ import annotations

from pathlib import Path

import onnx

from export.trt_lint import require_clean
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.engine import engine
from runtimes.target import Target


def to_trt(
    artifact: Artifact, target: Target, path: Path, console: Console, timing_cache: Path | None = None
) -> Artifact:
    """Return the engine at `path`, built unless the existing one fits; see `runtimes.engine.engine`.

    Raises InputError for a graph that TensorRT rejects or misinterprets.
    """

    def check() -> None:
        require_clean(onnx.load(artifact.path), artifact.path.name)

    return engine(artifact, target, path, console, timing_cache, check)
