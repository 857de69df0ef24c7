"""Find the folders of splits and classes by their names, and refuse what may be either.

Usual names of splits are train, Training, valid, validation_set, seg_test and so on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from compress.images.folders import (
    OUTSIDE,
    Entry,
    FolderWalk,
    LeftOutFiles,
    count_files,
    has_images,
    in_nfc,
    require_whole_links,
    sub_folders,
)
from compress.images.samples import SPLITS
from runtimes.errors import InputError
from runtimes.files import printable

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SPLIT_OF_WORD = {word: split for split, words in WORDS.items() for word in words}
NEUTRAL = frozenset({
    "class", "classes", "crops", "data", "dataset", "datasets", "dir", "directory", "file", "files", "final", "folder",
    "image", "images", "img", "imgs", "jpeg", "jpg", "partition", "photo", "photos", "picture", "pictures", "pics",
    "png", "raw", "sample", "samples", "set", "sets", "split", "subset",
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


def split_folders(root: Path, given: Mapping[str, Path], left_out: LeftOutFiles) -> dict[str, Path]:
    """Return the folder of each split: those in root whose names are usual, and `given`, which replaces them.

    given: folders by split, which may be in root under any name. Returns nothing if no folder in root is named like a
    split; else counts in `left_out` what is not used. Raises InputError for two folders of one split, and, unless train
    is given, for images in other folders beside the splits.
    """
    require_whole_links(root)
    walk = FolderWalk(root)
    split_of = recognize(folder.name for folder in walk.top.folders)
    folders = dict(given)
    for folder in walk.top.folders if split_of else []:
        path, split = Path(folder.path), split_of.get(folder.name)
        uses = {other for other, given_folder in given.items() if path.samefile(given_folder)}
        if uses and (split is None or split in uses):
            continue
        if split is None:
            if "train" not in given:
                _require_no_images(walk, folder)
            walk.left_out.add("in a folder beside the splits", *count_files(path))
        elif split in given:
            used = [folder for folder in given.values() if path.resolve() in folder.resolve().parents]
            walk.left_out.add(f"in a folder of root that data.{split} replaces", *count_files(path, used))
        elif split in folders:
            raise InputError(
                f"{root}: {printable(folders[split].name)} and {printable(path.name)} both look like {split}; "
                f"move one elsewhere, or give the right one as data.{split}, or if they are classes: data.train: {root}"
            )
        else:
            folders[split] = path
    if not split_of:
        return {}
    for image in walk.top.images:
        walk.left_out.add(OUTSIDE, image.path)
    left_out.update(walk.left_out)
    return {split: folders[split] for split in SPLITS if split in folders}


def _require_no_images(walk: FolderWalk, folder: Entry) -> None:
    """Raise InputError if a folder beside splits holds images."""
    if next(walk.images(folder, "", LeftOutFiles()), None):
        raise InputError(
            f"{printable(folder.path)}: holds images, but is named like no split, unlike others beside it; move it "
            "elsewhere, or give the folders as data.train, data.val and data.test without data.root, or if all of "
            f"them are classes: data.train: {walk.root}"
        )


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
    if may_be_splits and shared and len(set.union(*inside.values())) > 1:
        raise InputError(
            f"{walk.root}: {', '.join(sorted(names)[:3])} all hold the folder{'s' if len(shared) > 1 else ''} "
            f"{', '.join(shared[:3])}, so that either may be the classes; if the former are: data.train: {walk.root}; "
            "if they are splits, give them as data.train, data.val and data.test"
        )


def _require_class(root: Path, name: str, inner: set[str], names: set[str]) -> None:
    """Raise InputError if a folder that holds the folders `inner` is no class folder; names: of those beside it."""
    path, others = printable(str(root / name)), sorted((names & inner) - {in_nfc(name)})
    if others:
        raise InputError(
            f"{path}/{others[0]}: has the name of the folder {others[0]} beside {in_nfc(name)}, so that its images may "
            "be of either class; move it elsewhere or rename it"
        )
    if split := next(iter(sorted(recognize(inner))), None):
        cure = f"move it to ROOT/{split}/{printable(name)}, or rename it if its images belong to the class like others"
        if len(names) == 1:
            cure = f"give {path} instead of {root}"
        raise InputError(f"{path}/{split}: looks like a split inside a class; {cure}")
