from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.pipeline.run_folder import RunFolder
from compress.recipe import own_code
from runtimes.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", "net", fresh=False)


@pytest.fixture
def result(folder: RunFolder) -> Path:
    """A file that an earlier run wrote."""
    path = folder.path / "steps" / "train-0" / "result.txt"
    path.parent.mkdir(parents=True)
    path.write_text("done")
    return path


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    RunFolder(path, "net", fresh=False)
    assert json.loads((path / "run.json").read_text()) == {"schema_version": 1, "recipe": "net"}


@pytest.mark.parametrize("fresh", [False, True])
def test_an_empty_folder_is_taken(tmp_path: Path, fresh: bool) -> None:
    RunFolder(tmp_path, "net", fresh)
    assert (tmp_path / "run.json").exists()


def test_fresh_empties_a_run_folder(folder: RunFolder, result: Path) -> None:
    RunFolder(folder.path, "net", fresh=True)
    assert not result.exists()
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "run.json"]


def test_without_fresh_results_stay(folder: RunFolder, result: Path) -> None:
    RunFolder(folder.path, "net", fresh=False)
    assert result.read_text() == "done"


def test_the_cache_is_the_folder_unless_another_is_given(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "a", "net", fresh=False).cache == tmp_path / "a"
    assert RunFolder(tmp_path / "b", "net", fresh=False, cache=tmp_path / "shared").cache == tmp_path / "shared"


def test_the_inputs_of_a_run_are_written(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "digests").write_bytes(b"digests")
    folder.write_inputs("name: net\n", {"train": {"a.png": 0}}, tmp_path / "digests")
    assert (folder.path / "seen.npz").read_bytes() == b"digests"
    assert (folder.path / "recipe.yaml").read_text() == "name: net\n"
    assert json.loads((folder.path / "splits.json").read_text()) == {"train": {"a.png": 0}}


@pytest.mark.parametrize("fresh", [False, True])
def test_the_folder_of_another_recipe_is_left_alone(folder: RunFolder, result: Path, fresh: bool) -> None:
    with pytest.raises(InputError) as caught:
        RunFolder(folder.path, "other", fresh)
    assert str(caught.value) == (
        f"{folder.path}: belongs to the recipe 'net', not to 'other'; choose another with --out"
    )
    assert result.exists()


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


def test_copies_of_the_named_code_are_kept(folder: RunFolder, code: Callable[..., Path], tmp_path: Path) -> None:
    path = code("def build(num_classes): pass")
    content = path.read_bytes()
    path.write_text("changed while it ran")
    (tmp_path / "seen.npz").touch()
    folder.write_inputs("", {}, tmp_path / "seen.npz", own_code.files())
    assert (folder.path / "code/my_net.py").read_bytes() == content
