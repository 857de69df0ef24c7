"""Tests of the fake runtime: fixed logits and latency."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from runtimes.artifact import Artifact
from runtimes.backends import fake
from runtimes.errors import ArtifactError
from runtimes.target import Target

TARGET = Target("board", runtime="fake")
ROWS = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)


def images(count: int) -> np.ndarray:
    return np.zeros((count, 3, 4, 4), np.float32)


@pytest.mark.parametrize("sizes", [(3,), (1, 1, 1), (2, 1), (2, 2, 2), (7,), (4, 3)])
def test_rows_come_in_turn_over_the_life_of_the_session(
    fake_artifact: Callable[..., Artifact], sizes: tuple[int, ...]
) -> None:
    session = fake.load(fake_artifact(logits=ROWS), TARGET)
    found = np.concatenate([session.run(images(size))[0] for size in sizes])
    np.testing.assert_array_equal(found, ROWS[np.arange(sum(sizes)) % 3])
    assert found.dtype == np.float32


def test_two_sessions_count_for_themselves(fake_artifact: Callable[..., Artifact]) -> None:
    artifact = fake_artifact(logits=ROWS)
    first, second = fake.load(artifact, TARGET), fake.load(artifact, TARGET)
    first.run(images(1))
    np.testing.assert_array_equal(second.run(images(1))[0], ROWS[:1])


def test_a_run_takes_the_latency_of_the_file(fake_artifact: Callable[..., Artifact]) -> None:
    session = fake.load(fake_artifact(latency_ms=15), TARGET)
    start = time.perf_counter()
    session.run(images(2))
    assert time.perf_counter() - start > 0.0149


def test_another_format_is_refused_with_its_name(fake_artifact: Callable[..., Artifact]) -> None:
    artifact = fake_artifact(format="onnx")
    with pytest.raises(ArtifactError, match="target 'board' has runtime 'fake', which does not run onnx") as caught:
        fake.load(artifact, TARGET)
    assert str(artifact.path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"latency_ms": 1}', '{"logits": [[1]]}', '{"latency_ms": 1, "logits": []}']
)
def test_a_damaged_file_is_an_artifact_error(fake_artifact: Callable[..., Artifact], text: str) -> None:
    artifact = fake_artifact()
    artifact.path.write_text(text)
    with pytest.raises(ArtifactError):
        fake.load(artifact, TARGET)


def test_close_can_be_called(fake_artifact: Callable[..., Artifact]) -> None:
    assert fake.load(fake_artifact(), TARGET).close() is None
