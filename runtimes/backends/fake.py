"""Fake runtime with fixed latency and logits, for tests of measuring and gating without an engine.

A fake artifact is a JSON file: `{"latency_ms": 2.0, "logits": [[…], …]}`. The n-th image of a session gets row n modulo
the number of rows.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError
from runtimes.files import read_json
from runtimes.outputs.kinds import Arrays
from runtimes.session import Images, Session
from runtimes.target import Target

PACKAGE = None


class FakeSession:
    """Session that returns the given rows in turn and sleeps for `latency_ms` per call."""

    def __init__(self, logits: npt.NDArray[np.float32], latency_ms: float) -> None:
        self._logits = logits
        self._latency_s = latency_ms / 1000
        self._next = 0

    def run(self, images: Images) -> Arrays:
        """See `runtimes.session.Session.run`."""
        time.sleep(self._latency_s)
        rows = (self._next + np.arange(len(images))) % len(self._logits)
        self._next += len(images)
        return (self._logits[rows],)

    def close(self) -> None:
        """See `runtimes.session.Session.close`."""


def load(artifact: Artifact, target: Target) -> Session:
    """Load a fake artifact; raises ArtifactError for any other format."""
    if artifact.manifest.format != "fake":
        raise ArtifactError(
            f"{artifact.path}: target '{target.name}' has runtime 'fake', which does not run {artifact.manifest.format}"
        )
    try:
        content = read_json(artifact.path)
        logits, latency_ms = np.asarray(content["logits"], np.float32), float(content["latency_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{artifact.path}: not a fake artifact with latency_ms and logits ({error!r})") from error
    if logits.ndim != 2 or not logits.size or not 0 <= latency_ms < 60_000:
        raise ArtifactError(f"{artifact.path}: needs rows of logits and a latency of 0 to 60000 ms")
    return FakeSession(logits, latency_ms)
