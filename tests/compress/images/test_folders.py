"""Walks over folders: files of other tools, links, formats, names, and how what is left out is counted."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.images import folders
from compress.images.folders import FolderWalk, LeftOutFiles
from compress.images.samples import LeftOut
from runtimes.errors import InputError

MakeTree = Callable[..., Path]
WriteImage = Callable[..., Path]
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def names(walk: FolderWalk) -> list[str]:
    return [walk.name(path) for path in walk.all_images()]


def counts(walk: FolderWalk) -> dict[str, int]:
    return {files.reason: files.count for files in walk.left_out.all()}


@pytest.mark.parametrize(
    "folder",
    [
        ".ipynb_checkpoints", ".thumbnails", ".@__thumb", ".Trash-1000", ".git", ".dvc", ".AppleDouble", "@eaDir",
        "@EADIR", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX",
        "__pycache__",
    ],
)  # fmt: skip
def test_folders_of_other_tools_are_counted_and_not_read(make_tree: MakeTree, folder: str) -> None:
    root = make_tree("r", {"": 2, f"{folder}/deep": 3, f"sub/{folder}": 1, "sub": 1})
    walk = FolderWalk(root)
    assert names(walk) == ["0.png", "1.png", "sub/0.png"]
    assert counts(walk) == {f"in {folder}, a folder of another tool": 4}
    assert walk.left_out.all()[0].example == f"{root}/{folder}/deep/0.png"


@pytest.mark.parametrize("name", ["._0.png", ".hidden.jpg", "Thumbs.db", "thumbs.db", ".DS_Store", "desktop.ini"])
def test_files_of_other_tools_are_counted(make_tree: MakeTree, name: str) -> None:
    root = make_tree("r", {"": 1})
    (root / name).write_bytes(b"x")
    walk = FolderWalk(root)
    assert names(walk) == ["0.png"]
    assert walk.left_out.all() == (LeftOut(folders.HIDDEN, 1, f"{root}/{name}"),)


def test_other_files_are_counted_by_extension(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 1})
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", "x.jpg.part", "noend."):
        (root / "cat" / name).write_bytes(b"x")
    walk = FolderWalk(root)
    assert names(walk) == ["cat/0.png"]
    assert counts(walk) == {
        "extension .heic, which can't be read as an image": 2,
        "no extension": 2,
        "extension .part, which can't be read as an image": 1,
        "extension .txt, which can't be read as an image": 1,
    }


def test_rare_reasons_share_a_line(make_tree: MakeTree) -> None:
    root = make_tree("r", {"": 1})
    for number in range(30):
        (root / f"scan.{number:04d}").write_bytes(b"x")
    walk = FolderWalk(root)
    assert names(walk) == ["0.png"]
    assert len(walk.left_out.all()) == folders.MAX_REASONS + 1
    assert walk.left_out.all()[-1] == LeftOut("other reasons", 10, f"{root}/scan.0020")


def test_links_to_folders_and_files_are_followed_and_keep_their_names(
    make_tree: MakeTree, write_image: WriteImage
) -> None:
    store = make_tree("store", {"x/deep": 1})
    root = make_tree("r", {"sub": 1})
    write_image(store / "blob.jpg").rename(store / "0f3a")  # as git-annex and DVC store a file
    (root / "linked").symlink_to(store / "x", target_is_directory=True)
    (root / "linked.jpg").symlink_to(store / "0f3a")
    walk = FolderWalk(root)
    assert names(walk) == ["linked/deep/0.png", "linked.jpg", "sub/0.png"]
    assert not walk.left_out.all()


def test_broken_links_are_counted(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 1})
    (root / "cat" / "1.png").symlink_to(root / "nowhere.png")
    (root / "cat" / "more").symlink_to(root / "nowhere", target_is_directory=True)
    (root / "cat" / "itself.png").symlink_to(root / "cat" / "itself.png")
    walk = FolderWalk(root)
    assert names(walk) == ["cat/0.png"]
    assert walk.left_out.all() == (LeftOut(folders.BROKEN_LINK, 3, f"{root}/cat/1.png"),)


def test_a_broken_link_instead_of_a_class_folder_raises(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 1})
    (root / "1.png").symlink_to(root / "nowhere.png")
    folders.require_whole_links(root)
    (root / "dog").symlink_to("/nowhere/dog", target_is_directory=True)
    with pytest.raises(InputError, match=r"r/dog: is a broken link to /nowhere/dog; repair or remove it$"):
        folders.require_whole_links(root)


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_circles_of_links_end(make_tree: MakeTree, target: str) -> None:
    root = make_tree("r", {"sub/cat": 2})
    (root / "sub" / "cat" / "again").symlink_to(target, target_is_directory=True)
    walk = FolderWalk(root)
    assert names(walk) == ["sub/cat/0.png", "sub/cat/1.png"]
    assert walk.left_out.all() == (LeftOut(folders.READ_ALREADY, 1, f"{root}/sub/cat/again"),)


def test_a_folder_is_read_once_through_several_links(make_tree: MakeTree) -> None:
    store, root = make_tree("store", {"": 2}), make_tree("r", {"cat": 1})
    for name in ("a", "b", "c"):
        (root / "cat" / name).symlink_to(store, target_is_directory=True)
    walk = FolderWalk(root)
    assert names(walk) == ["cat/0.png", "cat/a/0.png", "cat/a/1.png"]
    assert counts(walk) == {folders.READ_ALREADY: 2}


def test_a_folder_of_two_owners_raises(make_tree: MakeTree) -> None:
    root = make_tree("r", {"cat": 1, "dog": 1})
    (root / "cat" / "more").symlink_to(root / "dog", target_is_directory=True)
    walk = FolderWalk(root)
    cat, dog = walk.top.folders
    list(walk.images(cat, "cat", LeftOutFiles()))
    with pytest.raises(InputError, match=r"cat/more and .*r/dog are the same folder, .* 'cat' and to 'dog'"):
        list(walk.images(dog, "dog", LeftOutFiles()))


def test_special_files_are_counted(make_tree: MakeTree) -> None:
    root = make_tree("r", {"": 1})
    os.mkfifo(root / "pipe.png")
    walk = FolderWalk(root)
    assert names(walk) == ["0.png"]
    assert counts(walk) == {folders.SPECIAL: 1}


def test_files_of_other_tools_are_counted_up_to_a_limit_and_not_through_links(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_COUNTED", 5)
    root = make_tree("r", {"": 1, ".snapshot/1": 4, ".snapshot/2": 4, ".snapshot/3": 4})
    (root / ".everything").symlink_to("/")
    walk = FolderWalk(root)
    assert names(walk) == ["0.png"]
    assert counts(walk) == {
        "in .snapshot, a folder of another tool": 5, "in .everything, a folder of another tool": 1
    }  # fmt: skip


def test_a_folder_that_can_not_be_read_raises(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree("r", {"cat": 1})
    (folder,) = FolderWalk(root).top.folders
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"r/cat: can't be read \(Permission denied\)$"):
        names(FolderWalk(root))
    for function in (folders.sub_folders, folders.has_images):
        with pytest.raises(InputError, match=r"can't be read"):
            function(folder)


def test_names_are_composed_unless_two_files_would_share_one(make_tree: MakeTree) -> None:
    walk = FolderWalk(make_tree("alone", {DECOMPOSED: 1}))
    assert names(walk) == [f"{COMPOSED}/0.png"]
    walk = FolderWalk(make_tree("both", {COMPOSED: 1, DECOMPOSED: 2}))
    assert sorted(names(walk)) == [f"{COMPOSED}/0.png", f"{COMPOSED}/0.png (2)", f"{COMPOSED}/1.png"]
    path = next(walk.all_images())
    assert walk.name(path) == walk.name(path)


def test_names_that_are_not_utf_8_can_be_printed(make_tree: MakeTree, write_image: WriteImage) -> None:
    root = make_tree("r", {"": 1})
    try:
        write_image(root / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert names(FolderWalk(root)) == ["0.png", r"caf\xe9.png"]


def test_names_are_relative_to_a_relative_folder_too(make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_tree("r", {"sub/cat": 1}))
    assert names(FolderWalk(Path("sub/../sub"))) == ["cat/0.png"]
    assert names(FolderWalk(Path("."))) == ["sub/cat/0.png"]


def test_the_order_is_that_of_sorted_paths(make_tree: MakeTree, write_image: WriteImage) -> None:
    root = make_tree("r", {"b": 2, "a": 1, "a-b": 1, "a/c": 1})
    write_image(root / "a.png")
    expected = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    assert names(FolderWalk(root)) == expected


def test_counts_of_two_walks_are_added() -> None:
    total, other = LeftOutFiles(), LeftOutFiles()
    total.add("a", "x")
    other.add("a", "y", 2)
    other.add("b", "z", 0)
    total.update(other)
    assert total.all() == (LeftOut("a", 3, "x"),)
