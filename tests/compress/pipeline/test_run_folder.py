from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.pipeline import run_folder
from compress.pipeline.run_folder import RunFolder
from runtimes.errors import InputError


class Work:
    """A step that counts how often it was done and writes one result."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def __call__(self, folder: Path) -> None:
        self.folders.append(folder)
        (folder / "result.txt").write_text("done")


def refuse(folder: Path) -> None:
    raise AssertionError(f"done again in {folder}")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", "net", fresh=False)


def test_a_step_is_done_once(folder: RunFolder) -> None:
    work = Work()
    first = folder.step("train", {"lr": 1}, (), work)
    assert folder.step("train", {"lr": 1}, (), refuse) == first
    assert work.folders == [first]
    assert first.parent == folder.path / "steps"
    assert (first / "result.txt").read_text() == "done"


def test_a_later_run_finds_the_step(folder: RunFolder) -> None:
    first = folder.step("train", {"lr": 1}, (), Work())
    assert RunFolder(folder.path, "net", fresh=False).step("train", {"lr": 1}, (), refuse) == first


@pytest.mark.parametrize(("name", "inputs"), [("train", {"lr": 2}), ("train", [{"lr": 1}]), ("distil", {"lr": 1})])
def test_other_inputs_are_another_step(folder: RunFolder, name: str, inputs: object) -> None:
    first = folder.step("train", {"lr": 1}, (), Work())
    work = Work()
    second = folder.step(name, inputs, (), work)
    assert work.folders == [second]
    assert second != first
    assert folder.step("train", {"lr": 1}, (), refuse) == first


def test_the_order_of_keys_is_no_other_input(folder: RunFolder) -> None:
    first = folder.step("train", {"a": 1, "b": 2}, (), Work())
    assert folder.step("train", {"b": 2, "a": 1}, (), refuse) == first


def test_another_version_of_a_package_is_another_step(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_torch(version: str) -> Callable[[tuple[str, ...]], dict[str, str]]:
        return lambda names: dict.fromkeys(names, version)

    monkeypatch.setattr(run_folder, "package_versions", with_torch("1"))
    trained, plain = folder.step("train", 1, ("torch",), Work()), folder.step("plain", 1, (), Work())
    monkeypatch.setattr(run_folder, "package_versions", with_torch("2"))
    assert folder.step("train", 1, ("torch",), Work()) != trained
    assert folder.step("plain", 1, (), refuse) == plain


def test_other_code_is_another_step(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder.step("train", 1, (), Work())
    monkeypatch.setattr(run_folder, "code_digest", lambda: "other")
    assert folder.step("train", 1, (), Work()) != first


def test_an_interrupted_step_is_done_again_in_its_folder(folder: RunFolder) -> None:
    def interrupted(step: Path) -> None:
        (step / "state.txt").write_text("epoch 3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.step("train", 1, (), interrupted)
    assert "train" not in folder.steps
    work = Work()
    step = folder.step("train", 1, (), work)
    assert work.folders == [step]
    assert (step / "state.txt").read_text() == "epoch 3"


def test_a_step_whose_done_json_was_deleted_is_done_again(folder: RunFolder) -> None:
    step = folder.step("train", 1, (), Work())
    (step / "done.json").unlink()
    work = Work()
    assert folder.step("train", 1, (), work) == step
    assert work.folders == [step]
    assert (step / "done.json").exists()


def test_done_json_tells_what_went_in(folder: RunFolder) -> None:
    step = folder.step("train", {"lr": 1}, ("numpy", "no-such-package"), Work())
    content = json.loads((step / "done.json").read_text())
    assert (content["step"], content["inputs"]) == ("train", {"lr": 1})
    assert content["packages"]["numpy"]
    assert "no-such-package" not in content["packages"]
    assert content["code"] == run_folder.code_digest()
    assert step.name == f"train-{content['key'][:12]}"
    assert content["duration_s"] >= 0


def test_durations_are_those_of_this_run_in_order(folder: RunFolder) -> None:
    for name in ("b", "a"):
        folder.step(name, 1, (), Work())
    again = RunFolder(folder.path, "net", fresh=False)
    again.step("a", 1, (), refuse)
    assert list(folder.durations_s()) == ["b", "a"]
    assert list(again.durations_s()) == ["a"]


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    RunFolder(path, "net", fresh=False)
    assert json.loads((path / "run.json").read_text()) == {"schema_version": 1, "recipe": "net"}


@pytest.mark.parametrize("fresh", [False, True])
def test_an_empty_folder_is_taken(tmp_path: Path, fresh: bool) -> None:
    RunFolder(tmp_path, "net", fresh)
    assert (tmp_path / "run.json").exists()


def test_fresh_empties_a_run_folder(folder: RunFolder) -> None:
    step = folder.step("train", 1, (), Work())
    again = RunFolder(folder.path, "net", fresh=True)
    assert not step.exists()
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "run.json"]
    work = Work()
    again.step("train", 1, (), work)
    assert len(work.folders) == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_the_folder_of_another_recipe_is_left_alone(folder: RunFolder, fresh: bool) -> None:
    step = folder.step("train", 1, (), Work())
    with pytest.raises(InputError) as caught:
        RunFolder(folder.path, "other", fresh)
    assert str(caught.value) == (
        f"{folder.path}: belongs to the recipe 'net', not to 'other'; choose another with --out"
    )
    assert (step / "result.txt").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("marker", [None, "", "{}", "[]", "no json", '{"recipe": "net"}'])
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, fresh: bool, marker: str | None) -> None:
    (tmp_path / "photo.jpg").touch()
    if marker is not None:
        (tmp_path / "run.json").write_text(marker)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "net", fresh)
    assert str(caught.value) == f"{tmp_path}: is not empty and no run folder; choose another with --out"
    assert (tmp_path / "photo.jpg").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_another_schema_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 7, "recipe": "net"}')
    with pytest.raises(InputError, match=r"schema version 7, not 1; choose another with --out$"):
        RunFolder(tmp_path, "net", fresh)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_is_no_run_folder(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path / "out", "net", fresh)
    assert str(caught.value) == f"{tmp_path}/out: is a file; choose another folder with --out"
    assert (tmp_path / "out").read_text() == "precious"


def test_a_folder_below_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError):
        RunFolder(tmp_path / "out" / "run", "net", fresh=False)
