"""Folders as other tools leave them, which must be read with a count of what is left out, and ambiguous layouts."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from case import Case, written
from PIL import Image

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
TOOL_FOLDERS = (".ipynb_checkpoints", ".thumbnails", ".@__thumb", ".Trash-1000", ".git", ".dvc", "@eaDir", "#recycle",
                "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX",
                "__pycache__")  # fmt: skip
OTHER_FILES = ("._0.png", "Thumbs.db", ".DS_Store", "desktop.ini", "a.heic", "a.txt", "none", "a.png.part", "a.eps")
SPLITS = {
    "splits in any case": ("Train", "VAL", "Test"),
    "long names of splits": ("Training", "Validation", "Testing"),
    "splits with a suffix": ("train_set", "valid_images", "testset"),
    "splits with a prefix": ("seg_train", "seg_val", "seg_test"),
}
TWO, THREE = ("cat", "dog"), ("1", "2", "3")
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "two folders of one split": (("train/cat", "train/dog", "Train/cat"), "both look like train"),
    "classes beside a split": (("bus", "car", "train"), "bus"),
    "a folder beside the splits": (("train/cat", "train/dog", "test/cat", "Meta"), "Meta"),
    "a wrapper": (("flowers/cat", "flowers/dog"), "flowers"),
    "a wrapper of splits": (("flowers/train/cat", "flowers/test/cat"), "flowers"),
    "a split twice": (("train/train/cat", "train/train/dog"), "its only folder train"),
    "splits inside classes": (("cat/train", "cat/test", "dog/train", "dog/test"), "cat/test"),
    "a copy of all inside": (("cat", "dog", "pets/cat", "pets/dog"), "pets/cat"),
    "a class inside another": (("cat", "dog", "cat/dog"), "cat/dog"),
    "images and masks": (("sick/images", "sick/masks", "well/images", "well/masks"), "images, masks"),
    "folds": (("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), "fold1"),
    "a number that is no class": ((*(f"train/{name}" for name in THREE), "test/0"), "test/0"),
    "a class in another case": (("train/cat", "train/dog", "val/Cat"), "did you mean 'cat'"),
    "one class": (("cat",), "at least 2 classes"),
    "no class": ((), "at least 2 classes"),
}


def folders(folder: Path) -> Iterator[Case]:
    """Yield folders with files of other tools, links and odd names, which are read, and ambiguous layouts."""
    for name, (places, named) in REFUSED.items():
        yield _case(_images(folder / name, *places), name, named)
    for name, change in {**_broken(), **_doubled()}.items():
        root = _images(folder / name, *(f"train/{place}" for place in TWO))
        change(root)
        yield _case(root, name, "train")
    for name, splits in SPLITS.items():
        root = _images(folder / name, *(f"{split}/{place}" for split in splits for place in TWO))
        yield _case(root, name, f"test: {root}/{splits[2]}", is_right=True)
    for tool in TOOL_FOLDERS:
        yield _case(_images(folder / f"with {tool}", *TWO, f"cat/{tool}", tool), tool, "left out: ", is_right=True)
    for file in OTHER_FILES:
        root = _images(folder / f"with {file}", *TWO)
        written(root / "cat" / file, b"x")
        yield _case(root, file, "left out: 1 file: ", is_right=True)
    for name, change in _odd().items():
        root = _images(folder / name, *TWO)
        change(root)
        yield _case(root, name, "", is_right=True)


def _case(root: Path, name: str, named: str, is_right: bool = False) -> Case:
    return Case(name, root, ["data", "check", f"imagefolder:{root}"], named, f"folders {name}".encode(), is_right)


def _images(root: Path, *places: str) -> Path:
    """Write four different images into each place and return the root."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for place in places:
        for index in range(9):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(stream, "png")
            written(root / place / f"{index}.png", stream.getvalue())
    return root


def _broken() -> dict[str, Callable[[Path], object]]:
    return {
        "a class that is a broken link": lambda root: (root / "train" / "eel").symlink_to("/nowhere/eel"),
        "a class with broken links only": lambda root: (
            (root / "train" / "eel").mkdir(),
            (root / "train" / "eel" / "0.png").symlink_to("/nowhere/0.png"),
        ),
        "a class in another format": lambda root: written(root / "train" / "eel" / "a.heic", b"x"),
        "a class of hidden files": lambda root: written(root / "train" / "eel" / "._0.png", b"x"),
    }


def _doubled() -> dict[str, Callable[[Path], object]]:
    return {
        "a split that is a link to another": lambda root: (root / "val").symlink_to("train"),
        "a class that is a link to another": lambda root: (root / "train" / "wolf").symlink_to("dog"),
        "a class with a link to another": lambda root: (root / "train" / "cat" / "more").symlink_to("../dog"),
    }


def _odd() -> dict[str, Callable[[Path], object]]:
    def class_through_link(root: Path) -> None:
        (root / "cat").rename(root.parent / f"{root.name} cat")
        (root / "cat").symlink_to(root.parent / f"{root.name} cat", target_is_directory=True)

    return {
        "a class through a link": class_through_link,
        "a link to the same folder": lambda root: (root / "cat" / "again").symlink_to("."),
        "a link to the root": lambda root: (root / "cat" / "up").symlink_to(".."),
        "a link to the root of the disk": lambda root: (root / "cat" / "top").symlink_to("/"),
        "a broken link": lambda root: (root / "cat" / "x.png").symlink_to("/nowhere.png"),
        "a link to itself": lambda root: (root / "cat" / "x.png").symlink_to("x.png"),
        "a pipe": lambda root: os.mkfifo(root / "cat" / "x.png"),
        "NFC and NFD": lambda root: _images(root / NFC, "").rename(root / NFD) and _images(root / NFC, ""),
        "a name with a line break": lambda root: (root / "cat").rename(root / "cat\nfish"),
        "a name with quotes and markup": lambda root: (root / "cat").rename(root / "<b>'cat' \"dog\" {{x}}"),
        "a deep folder": lambda root: _images(root / "cat" / "/".join("a" * 300), ""),
        "a name that is not UTF-8": lambda root: (root / "cat").rename(Path(os.fsdecode(bytes(root) + b"/caf\xe9"))),
    }
