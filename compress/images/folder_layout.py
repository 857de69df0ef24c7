"""Find the folders of splits and classes by their names, and refuse what may be either.

Usual names of splits are train, Training, valid, validation_set, seg_test and so on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from compress.images.folders import (
    OUTSIDE,
    Entry,
    FolderWalk,
    LeftOutFiles,
    count_files,
    has_images,
    in_nfc,
    printable,
    require_whole_links,
    sub_folders,
)
from runtimes.errors import InputError

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SPLIT_OF_WORD = {word: split for split, words in WORDS.items() for word in words}
NEUTRAL = frozenset({
    "class", "classes", "crops", "data", "dataset", "datasets", "file", "files", "final", "folder", "image", "images",
    "img", "imgs", "jpeg", "jpg", "photo", "photos", "picture", "pictures", "pics", "png", "raw", "sample", "samples",
    "set", "sets", "split",
})  # fmt: skip
GLUED = re.compile(f"({'|'.join(sorted(SPLIT_OF_WORD, key=len, reverse=True))})({'|'.join(sorted(NEUTRAL))})")


def recognize(names: Iterable[str]) -> dict[str, str]:
    """Return the split of each folder in `names` whose name is usual for one.

    A name is usual if it is a word of `WORDS` in any case, alone, with numbers or with words like set and images, or if
    it differs only in that word from another folder, as seg_train and seg_test do.
    """
    parsed = {name: parts for name in names if (parts := _parse(name))}
    return {
        name: split
        for name, (split, rest) in parsed.items()
        if rest <= NEUTRAL or any(rest == others and split != other for other, others in parsed.values())
    }


def _parse(name: str) -> tuple[str, frozenset[str]] | None:
    """Return the split that a name mentions and its other words; None if it mentions none or several."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words: list[str] = []
    for word in re.findall(r"[^\W\d_]+", spaced.lower()):
        glued = GLUED.fullmatch(word)
        words += glued.groups() if glued else (word,)
    words = [
        part for word in words for part in (GLUED.sub(r"\1 \2", word).split() if GLUED.fullmatch(word) else [word])
    ]
    splits = [word for word in words if word in SPLIT_OF_WORD]
    if len(splits) != 1:
        return None
    return SPLIT_OF_WORD[splits[0]], frozenset(words) - {splits[0]}


def splits_in_root(root: Path, left_out: LeftOutFiles, *, refuse_others: bool) -> dict[str, Path]:
    """Return the folders in root whose names are usual for splits; count the other files, if there are any splits.

    Raises InputError for two folders of one split, and, if `refuse_others`, for images in other folders beside them.
    """
    require_whole_links(root)
    walk = FolderWalk(root)
    split_of = recognize(folder.name for folder in walk.top.folders)
    folders: dict[str, Path] = {}
    for name, split in split_of.items():
        if split in folders:
            raise InputError(
                f"{root}: both {printable(folders[split].name)} and {printable(name)} look like the split {split}; "
                "move one elsewhere, or give the folders as data.train, data.val and data.test without data.root, or "
                f"if they are classes: data.train: {root}"
            )
        folders[split] = root / name
    if folders:
        _count_others(walk, [folder for folder in walk.top.folders if folder.name not in split_of], refuse_others)
        left_out.update(walk.left_out)
    return {split: folders[split] for split in WORDS if split in folders}


def _count_others(walk: FolderWalk, others: list[Entry], refuse_others: bool) -> None:
    """Count what lies beside the folders of splits."""
    for image in walk.top.images:
        walk.left_out.add(OUTSIDE, image.path)
    for folder in others:
        if refuse_others and next(walk.images(folder, "", LeftOutFiles()), None):
            raise InputError(
                f"{printable(folder.path)}: holds images, but is named like no split, unlike others beside it; move it "
                "elsewhere, or give the folders as data.train, data.val and data.test without data.root, or if all of "
                f"them are classes: data.train: {walk.root}"
            )
        walk.left_out.add("in a folder beside the splits", *count_files(folder.path))


def require_classes(walk: FolderWalk, *, may_be_splits: bool) -> None:
    """Raise InputError if what should be class folders may be something else: splits, or folders of classes.

    may_be_splits: nothing but the names says that these are classes.
    """
    require_whole_links(walk.root)
    inside = {folder.name: set(sub_folders(folder)) for folder in walk.top.folders}
    names = {in_nfc(name) for name in inside}
    for name, inner in inside.items():
        _require_class(walk.root, name, inner, names)
    if any(not inside[folder.name] or has_images(folder) for folder in walk.top.folders) or len(names) < 2:
        return
    shared = sorted(set.intersection(*inside.values()))
    if len(set(recognize(names).values())) > 1:
        raise InputError(f"{walk.root}: holds folders of splits, not of classes; give it as data.root")
    if may_be_splits and len(shared) > 1:
        raise InputError(
            f"{walk.root}: {', '.join(sorted(names)[:3])} all hold the folders {', '.join(shared[:3])}, so that either "
            f"may be the classes; if the former are: data.train: {walk.root}"
        )


def _require_class(root: Path, name: str, inner: set[str], names: set[str]) -> None:
    """Raise InputError if a folder that holds the folders `inner` is no class folder; names: of those beside it."""
    path = printable(str(root / name))
    if len(names & inner) > 1:
        raise InputError(
            f"{path}: holds folders named like those beside it ({', '.join(sorted(names & inner)[:3])}), so it is no "
            f"class; move it out of {root}, or use it instead"
        )
    if split := next(iter(sorted(recognize(inner))), None):
        cure = f"move it to ROOT/{split}/{printable(name)}, or rename it if its images belong to the class like others"
        if len(names) == 1:
            cure = f"give {path} instead of {root}"
        raise InputError(f"{path}/{split}: looks like a split inside a class; {cure}")
