"""Tests of runtimes.session: `load` uses the runtime of the target."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from runtimes.artifact import Artifact
from runtimes.backends.fake import FakeSession
from runtimes.errors import InputError
from runtimes.session import load
from runtimes.target import Target


def test_the_target_names_the_runtime(fake_artifact: Callable[..., Artifact]) -> None:
    assert isinstance(load(fake_artifact(), Target("board", runtime="fake")), FakeSession)


def test_artifact_and_target_reach_the_runtime(
    fake_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ModuleType("runtimes.backends.fake")
    backend.load = lambda artifact, target: (artifact, target)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "runtimes.backends.fake", backend)
    artifact, target = fake_artifact(), Target("board", runtime="fake")
    assert load(artifact, target) == (artifact, target)


def test_a_runtime_that_is_not_here_is_answered_with_those_that_are(fake_artifact: Callable[..., Artifact]) -> None:
    target = Target("board", runtime="fake")
    object.__setattr__(target, "runtime", "npu")  # a target that another version of the toolkit checked
    with pytest.raises(InputError, match=r"no runtime 'npu'; choose one of .*fake.*ort"):
        load(fake_artifact(), target)
