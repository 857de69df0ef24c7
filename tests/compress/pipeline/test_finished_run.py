"""What a finished run learned from: its data set, its images, and the test images that its network has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from compress.images.copies import digests_of
from compress.pipeline import finished_run
from compress.pipeline.checks import load_data
from compress.pipeline.steps import Steps
from compress.recipe import named_data
from compress.recipe.recipe import Recipe
from runtimes.artifact import Artifact
from runtimes.errors import InputError

MakeRun = Callable[..., Artifact]


def weights_in(artifact: Artifact) -> str:
    """Return the path of a file of weights in the run's folder; load_data does not read it."""
    path = artifact.path.parents[1] / "steps" / "0-train-abc" / "weights.safetensors"
    path.parent.mkdir(parents=True)
    save_file({}, path)
    return str(path)


def sections(folder: Path, weights: str, **settings: object) -> dict[str, object]:
    """Return sections of a recipe on class folders."""
    data = {"name": "imagefolder", "root": str(folder), **settings}
    return {"data": data, "model": {"arch": "mobilenet_v2", "width": 0.25, "weights": weights}}


def test_a_run_knows_its_images_by_their_bytes_or_names(class_folders: Path, make_run: MakeRun) -> None:
    data = named_data.load(f"imagefolder:{class_folders}")
    samples, digests = data.train + data.test, digests_of(data.train + data.test)
    expected = [True] * len(data.train) + [False] * len(data.test)
    with_digests, without = (finished_run.read(make_run(name, name == "a").path.parents[1]) for name in ("a", "b"))
    for is_own in (True, False):
        assert with_digests.has("train", samples, digests, is_own).tolist() == expected
    assert without.has("train", samples, digests, is_own=True).tolist() == expected
    assert not without.has("train", samples, digests, is_own=False).any()


def test_test_images_that_the_weights_were_trained_on_are_excluded(
    class_folders: Path, make_run: MakeRun, make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps]
) -> None:
    trained = make_run(seed=1, test_share=0.4)
    recipe = make_recipe(**sections(class_folders, weights_in(trained), seed=2, test_share=0.4))
    steps = new_steps()
    data = load_data(recipe, steps).data
    listed = json.loads((trained.path.parents[1] / "splits.json").read_text())
    names = {sample.name for sample in data.test}
    assert names
    assert not names & set(listed["train"])
    reason = f"the network in {trained.path.parents[1]}, whose weights are used, was trained on it"
    assert {image.reason for image in data.rejected} == {reason}
    assert {image.split for image in data.rejected} == {"test"}
    assert f"set aside: {data.rejected[0].name}: {reason}" in steps.console.said  # type: ignore[attr-defined]


def test_weights_of_a_run_with_the_same_splits_exclude_nothing(
    class_folders: Path, make_run: MakeRun, make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps]
) -> None:
    recipe = make_recipe(**sections(class_folders, weights_in(make_run())))
    assert load_data(recipe, new_steps()).data.rejected == ()


def test_a_teacher_that_was_trained_on_test_images_excludes_them_too(
    class_folders: Path, make_run: MakeRun, make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps]
) -> None:
    parts = sections(class_folders, weights_in(make_run(seed=1, test_share=0.4)), seed=2, test_share=0.4)
    teacher = {"network": parts.pop("model")}
    recipe = make_recipe(**parts, stages=[{"stage": "distill", "epochs": 9, "teacher": teacher}])
    assert load_data(recipe, new_steps()).data.rejected


def test_a_test_split_that_the_network_knows_whole_is_an_error(
    class_folders: Path, make_run: MakeRun, make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps]
) -> None:
    trained = make_run()
    folder = trained.path.parents[1]
    splits = json.loads((folder / "splits.json").read_text())
    splits["train"] |= splits["test"]
    (folder / "splits.json").write_text(json.dumps(splits))
    (folder / "seen.npz").unlink()
    recipe = make_recipe(**sections(class_folders, weights_in(trained)))
    with pytest.raises(InputError, match=r"^no image of the split 'test' can be used; .* was trained on it; "):
        load_data(recipe, new_steps())
