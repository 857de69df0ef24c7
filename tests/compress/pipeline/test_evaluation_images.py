"""The images that artifacts of runs are evaluated on: those of splits.json, and none that the run learned from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.pipeline.evaluation_images import Choice, choose, seen_in_evalset
from runtimes.artifact import Artifact
from runtimes.errors import InputError

CLASSES = ("cat", "dog")
MakeRun = Callable[..., Artifact]


def names(choice: Choice) -> set[str]:
    return {sample.name for sample in choice.samples}


def listed(artifact: Artifact, *splits: str) -> set[str]:
    content = json.loads((artifact.path.parents[1] / "splits.json").read_text())
    return {name for split in splits for name in content[split]}


def test_on_its_own_data_the_test_split_of_the_run_is_evaluated(class_folders: Path, make_run: MakeRun) -> None:
    artifact = make_run(seed=5, test_share=0.4)
    choice = choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=False)
    assert names(choice) == listed(artifact, "test")
    assert names(choice) != names(choose(f"imagefolder:{class_folders}", "test", [], all_images=False))
    assert not any("left out" in note or "missing" in note for note in choice.notes)


def test_new_and_missing_images_are_named(class_folders: Path, make_run: MakeRun) -> None:
    artifact = make_run()
    gone = min(listed(artifact, "test"))
    shutil.copy(class_folders / gone, class_folders / "dog" / "new.png")
    (class_folders / gone).unlink()
    choice = choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=False)
    assert names(choice) == listed(artifact, "test") - {gone}
    splits = artifact.path.parents[1] / "splits.json"
    assert f"left out: 1 image (dog/new.png) not in {splits}: new, or excluded by the run" in choice.notes
    assert f"missing: 1 image ({gone}) of test in {splits}" in choice.notes


def test_in_a_copy_with_other_names_the_images_of_the_run_are_recognized(
    class_folders: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    artifact = make_run()
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "copy" / split / name).mkdir(parents=True)
    for path in class_folders.rglob("*.png"):
        for split in ("train", "test"):
            shutil.copy(path, tmp_path / "copy" / split / path.parent.name / f"copy of {path.name}")
    choice = choose(f"imagefolder:{tmp_path / 'copy'}", "test", [artifact], all_images=False)
    assert names(choice) == {f"test/{Path(name).parent}/copy of {Path(name).name}" for name in listed(artifact, "test")}
    left_out = [note for note in choice.notes if note.startswith("left out: ")]
    assert [note.split(" (")[0] for note in left_out] == [
        f"left out: {len(listed(artifact, split))} images" for split in ("train", "val")
    ]
    assert all(note.endswith(f"split of {artifact.path.parents[1]}; --all-images evaluates all") for note in left_out)


def test_all_images_are_evaluated_on_request_with_the_number_of_those_that_were_trained_on(
    class_folders: Path, make_run: MakeRun
) -> None:
    artifact = make_run()
    choice = choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=True)
    assert len(choice.samples) == 40
    trained, chosen = choice.notes[-2:]
    assert trained.startswith(f"{len(listed(artifact, 'train'))} images (")
    run = artifact.path.parents[1]
    assert trained.endswith(f") of 40 are of the train split of {run}, which it learned from: the figures are too good")
    assert "which chose, for example, the best epoch: the figures are too good" in chosen


def test_images_of_all_runs_are_left_out(class_folders: Path, make_run: MakeRun) -> None:
    one, other = make_run("one", seed=1, test_share=0.45), make_run("other", seed=2, test_share=0.45)
    choice = choose(f"imagefolder:{class_folders}", "test", [one, other], all_images=False)
    assert names(choice) == listed(one, "test") & listed(other, "test")


def test_the_val_split_may_be_evaluated_and_its_use_is_named(class_folders: Path, make_run: MakeRun) -> None:
    artifact = make_run(val_share=0.3)
    choice = choose(f"imagefolder:{class_folders}", "val", [artifact], all_images=False)
    assert names(choice) == listed(artifact, "val")
    assert "which chose, for example, the best epoch" in choice.notes[-1]


def test_no_image_that_remains_is_an_error(class_folders: Path, make_run: MakeRun, tmp_path: Path) -> None:
    artifact = make_run()
    for name in listed(artifact, "train"):
        for split in ("train", "test"):
            (tmp_path / "seen" / split / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(class_folders / name, tmp_path / "seen" / split / name)
    with pytest.raises(
        InputError, match=r"left out: .* of the train split of .*; --all-images evaluates all; no image"
    ):
        choose(f"imagefolder:{tmp_path / 'seen'}", "test", [artifact], all_images=False)


def test_the_test_folder_of_a_run_is_evaluated_whole(class_folders: Path, make_run: MakeRun, tmp_path: Path) -> None:
    shutil.copytree(class_folders, tmp_path / "layout" / "train")
    rng = np.random.default_rng(1)
    for name in CLASSES:
        (tmp_path / "layout" / "test" / name).mkdir(parents=True)
        for index in range(6):
            picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            picture.save(tmp_path / "layout" / "test" / name / f"{index}.png")
    artifact = make_run(root=tmp_path / "layout")
    (tmp_path / "link").symlink_to(tmp_path / "layout")
    for folder in ("layout", "layout/test", "link"):
        assert len(choose(f"imagefolder:{tmp_path / folder}", "test", [artifact], all_images=False).samples) == 12


def test_without_digests_only_the_own_data_is_recognized(class_folders: Path, make_run: MakeRun) -> None:
    artifact = make_run(digests=False)
    choice = choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=False)
    assert names(choice) == listed(artifact, "test")
    assert any("has no seen.npz: its images can't be recognized in other folders" in note for note in choice.notes)


def test_an_artifact_outside_of_its_run_is_named(class_folders: Path, make_run: MakeRun, tmp_path: Path) -> None:
    artifact = replace(make_run(), path=tmp_path / "copied.onnx")
    choice = choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=False)
    assert "copied.onnx is not in the folder of its run ('run'): images that it was trained on can't be recognized" in (
        choice.notes
    )


@pytest.mark.parametrize("content", [b"PK\x03\x04 damaged", b""])
@pytest.mark.parametrize("file", ["recipe.yaml", "splits.json", "seen.npz"])
def test_a_damaged_run_is_one_line(class_folders: Path, make_run: MakeRun, file: str, content: bytes) -> None:
    artifact = make_run()
    (artifact.path.parents[1] / file).write_bytes(content)
    with pytest.raises(InputError, match=r"run(/recipe\.yaml)?: "):
        choose(f"imagefolder:{class_folders}", "test", [artifact], all_images=False)


def test_training_images_in_an_evaluation_set_of_the_run_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    artifact = make_run()
    run = artifact.path.parents[1]
    mixed = tuple(sorted(listed(artifact, "test")))[:2] + tuple(sorted(listed(artifact, "train")))[:3]
    (note,) = seen_in_evalset(run / "steps" / "images", mixed, [artifact])
    assert note.startswith(f"3 images ({mixed[2]}, …) of 5 are of the train split of {run}, which it learned from: ")
    assert seen_in_evalset(run / "sample", mixed[:2], [artifact]) == ()
    assert seen_in_evalset(tmp_path / "elsewhere", mixed, [artifact]) == ()


def test_a_class_of_which_no_image_remains_is_named(class_folders: Path, make_run: MakeRun, tmp_path: Path) -> None:
    artifact = make_run()
    for name in listed(artifact, "train") | {name for name in listed(artifact, "test") if name.startswith("cat/")}:
        (tmp_path / "new" / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(class_folders / name, tmp_path / "new" / "test" / name)
    choice = choose(f"imagefolder:{tmp_path / 'new'}", "test", [artifact], all_images=False)
    assert {sample.label for sample in choice.samples} == {0}
    assert choice.notes[-1] == "no image remains of 1 of 2 classes: dog"
