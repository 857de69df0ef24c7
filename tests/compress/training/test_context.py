"""The inputs of a stage: immutable, without the test split, copied for a stage inside a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
from consoles import RecordingConsole

from compress.images.samples import Data
from compress.training.context import Context

MakeContext = Callable[..., Context]


def test_a_stage_can_not_change_its_context(make_context: MakeContext) -> None:
    context = make_context()
    with pytest.raises(FrozenInstanceError):
        context.seed = 1  # type: ignore[misc]


def test_no_field_holds_images_of_the_test_split(make_context: MakeContext, stripes: Data) -> None:
    context = make_context()
    test_names = {sample.name for sample in stripes.test}
    for field in fields(context):
        value = getattr(context, field.name)
        assert not isinstance(value, tuple) or not {getattr(item, "name", None) for item in value} & test_names
    assert {sample.name for sample in context.train} == {sample.name for sample in stripes.train}


def test_a_copy_with_another_folder_shares_the_rest(make_context: MakeContext, tmp_path: Path) -> None:
    """The stage prune trains in a folder of each round."""
    context = make_context()
    copied = replace(context, folder=tmp_path / "round-1")
    assert copied.folder != context.folder
    assert all(
        getattr(copied, field.name) is getattr(context, field.name)
        for field in fields(context)
        if field.name != "folder"
    )  # fmt: skip


def test_subset_returns_images_of_the_split_with_labels(make_context: MakeContext) -> None:
    context = make_context()
    subset = context.subset("train", 5)
    assert len(subset) == 5
    assert set(subset.names) <= {sample.name for sample in context.train}
    assert subset.labels is not None


def test_messages_and_progress_go_to_one_console(make_context: MakeContext) -> None:
    console = RecordingConsole()
    context = make_context(console=console)
    context.console.say("line")
    context.console.progress("work", 1, 2)
    assert (console.said, console.events) == (["line"], [("work", 1, 2)])
