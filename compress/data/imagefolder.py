"""Folders of class folders: `root/train/cat/1.jpg`, or `root/cat/1.jpg` to split by seed."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from compress.images.folder_layout import require_classes, split_folders
from compress.images.folders import (
    OUTSIDE,
    Entry,
    FolderWalk,
    LeftOutFiles,
    in_nfc,
    sub_folders,
)
from compress.images.samples import SPLITS, Data, Sample
from compress.images.stable_split import stable_split
from compress.images.synsets import imagenet_synsets
from compress.recipe.section import Config as Section
from runtimes.errors import InputError
from runtimes.files import printable


class Config(Section):
    """Folders of class folders: `root`, or single folders for the splits that the recipe needs.

    root: folder of train/, val/ and test/, each with one folder per class; or of the class folders. Other usual names
    such as Training/, valid/ or test_set/ are recognized; what may be a split or a class is an error.
    train, val, test: folders of class folders, instead of those in root. test may hold images without labels; the gate
    then needs min_agreement.
    calibration: folder of images for INT8 calibration, without labels.
    val_share, test_share: shares of the images to split off if the folder of that split is missing, by a hash of their
    names: approximate, but added images move no other.
    classes: text file with the name of one class folder per line, in the order of the network's outputs, or `imagenet`
    (the 1000 synsets). Folders may then also be named by class index, unless classes have numbers as names. By default
    the sorted names of the class folders.
    seed: of the split.
    """

    name: Literal["imagefolder"] = "imagefolder"
    root: Path | None = None
    train: Path | None = None
    val: Path | None = None
    test: Path | None = None
    calibration: Path | None = None
    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    classes: Path | Literal["imagenet"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _require_folder_key(self) -> Config:
        if not (self.root or self.train or self.test):
            raise ValueError("needs root, train or test; for example --set data.root=/data/flowers")
        return self


def load(config: Config) -> Data:
    """List the images of all folders; raises InputError for a missing folder or a class without images."""
    left_out = LeftOutFiles()
    walks = {split: FolderWalk(folder) for split, folder in _split_folders(config, left_out).items()}
    labelled = {split: walk for split, walk in walks.items() if split != "calibration"}
    for split, walk in labelled.items():
        require_classes(walk, may_be_splits=split == "train" and not config.train and not config.classes)
    classes = _classes(config, walks)
    samples = {split: _samples(config, walk, classes, split) for split, walk in labelled.items()}
    samples = _split_off_missing(config, samples, tuple(classes))
    if "calibration" in walks:
        samples["calibration"] = _unlabelled(walks["calibration"], "calibration")
    _require_separate(walks, samples)
    for walk in walks.values():
        left_out.update(walk.left_out)
    train, val, test, calibration = (samples.get(split, ()) for split in SPLITS)
    shown = _shown_folders(walks, samples)
    return Data(tuple(classes), train, val, test, calibration, left_out=left_out.all(), folders=shown)


def _split_folders(config: Config, left_out: LeftOutFiles) -> dict[str, Path]:
    """Return the folder of each split that has one; that of train is root if root holds class folders."""
    given = {split: folder for split in SPLITS if (folder := getattr(config, split))}
    for split, folder in given.items():
        _require_folder(folder, split)
    if not config.root:
        return given
    _require_folder(config.root, "root")
    if config.train and config.train.samefile(config.root):
        return given
    folders = split_folders(config.root, given, left_out)
    if not folders and config.train:
        raise InputError(f"data.root: {config.root}: has no folders train, val or test; remove data.root or data.train")
    return folders or {"train": config.root, **given}


def _is_root(config: Config, walk: FolderWalk) -> bool:
    """Return whether these class folders are directly in root."""
    return config.root is not None and not config.train and walk.root == Path(os.path.abspath(config.root))


def _shown_folders(walks: dict[str, FolderWalk], samples: dict[str, tuple[Sample, ...]]) -> dict[str, str]:
    """Return where the images of each split come from."""
    sources = {split: split if split in walks else "train" for split in SPLITS if split in samples}
    of_walk = {source: [s for split in sources if sources[split] == source for s in samples[split]] for source in walks}
    return {
        split: _shown(walks[source], of_walk[source])
        if split == source
        else f"{printable(str(walks[source].root))} ({len(samples[split])} of its {len(of_walk[source])} images)"
        for split, source in sources.items()
    }


def _shown(walk: FolderWalk, samples: list[Sample]) -> str:
    """Return a folder, and how many of its images are in sub-folders of class folders."""
    root = printable(str(walk.root))
    folders = (
        os.path.dirname(str(sample.source))[len(str(walk.root)) :] for sample in samples if sample.label is not None
    )
    inner = Counter(folder.strip(os.sep) for folder in folders if folder.strip(os.sep).count(os.sep))
    if not inner:
        return root
    listed = ", ".join(printable(folder) for folder in sorted(inner)[:3]) + (", …" if len(inner) > 3 else "")
    return f"{root}, with {sum(inner.values())} images in sub-folders of its classes: {listed}"


def _classes(config: Config, walks: dict[str, FolderWalk]) -> dict[str, int]:
    """Return the index of each class name."""
    if config.classes == "imagenet":
        return {synset: index for index, synset in enumerate(imagenet_synsets())}
    if config.classes is not None:
        return _class_file(config.classes)
    walk = walks.get("train") or walks.get("test") or walks["val"]
    names = sorted({in_nfc(folder.name) for folder in walk.top.folders})
    if len(names) < 2:
        raise InputError(f"{walk.root}: must hold at least 2 classes, has {len(names)}{_cure(walk)}")
    _require_distinct(walk, names)
    return {name: index for index, name in enumerate(names)}


def _require_distinct(walk: FolderWalk, names: list[str]) -> None:
    """Raise InputError for class folders such as Cat and cat; A and a may be letters."""
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(_folded(name), name)
        if other != name and len(name) > 1:
            raise InputError(
                f"{walk.root}: the classes {other!r} and {name!r} differ only in case, spaces or form; merge their "
                "folders, or list both in a file data.classes"
            )


def _folded(name: str) -> str:
    """Return what a name has in common with other spellings: without case, invisible characters and underscores."""
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(visible.casefold().replace("_", " ").split())


def _class_file(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise InputError(f"data.classes: {path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error})") from error
    names = [in_nfc(line.strip()) for line in lines if line.strip()]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InputError(f"{path}: names the class '{repeated[0]}' twice")
    if len(names) < 2:
        raise InputError(f"{path}: must hold at least 2 classes, has {len(names)}")
    return {name: index for index, name in enumerate(names)}


def _cure(walk: FolderWalk) -> str:
    """Return the end of a message about a folder with too few class folders."""
    images = len(walk.top.images)
    if not walk.top.folders and images:
        return f"; move its {images} image{'s' if images > 1 else ''} to {walk.root}/CLASS/, one folder per class"
    return _wrapper(walk) or ("" if walk.top.folders else _reasons(walk.left_out))


def _wrapper(walk: FolderWalk) -> str:
    """Return the end of a message about a folder whose only folder holds the folders of classes or splits."""
    folders = walk.top.folders
    if len(folders) != 1 or not sub_folders(folders[0]):
        return ""
    return f"; its only folder {in_nfc(folders[0].name)} holds {len(sub_folders(folders[0]))}: give that folder instead"


def _samples(config: Config, walk: FolderWalk, classes: dict[str, int], split: str) -> tuple[Sample, ...]:
    """Return the images of a folder of class folders, named by their paths in it.

    Raises InputError for an unknown class and for an empty class folder. A class without a folder has no images.
    """
    if not walk.top.folders and split == "test" and walk.top.images:
        return _unlabelled(walk, split)
    for image in walk.top.images:
        walk.left_out.add(OUTSIDE, image.path)
    if not walk.top.folders:
        reasons = _reasons(walk.left_out)
        raise InputError(f"{walk.root}: holds no class folders; expected {walk.root}/CLASS/image.jpg{reasons}")
    prefix = "" if _is_root(config, walk) else f"{split}/"
    samples: list[Sample] = []
    for folder in walk.top.folders:
        label, left_out = _label(folder, classes, config, walk, split), LeftOutFiles()
        paths = list(walk.images(folder, in_nfc(folder.name), left_out))
        samples += [Sample(f"{prefix}{walk.name(path)}", Path(path), label) for path in paths]
        if not paths:
            raise InputError(
                f"{printable(folder.path)}: class '{in_nfc(folder.name)}' has no images; add some or remove the folder"
                + _reasons(left_out)
            )
        walk.left_out.update(left_out)
    return tuple(samples)


def _reasons(left_out: LeftOutFiles) -> str:
    """Return the end of a message about a folder without images: what was left out there."""
    return "".join(f"; {files.line()}" for files in left_out.all()[:3])


def _label(folder: Entry, classes: dict[str, int], config: Config, walk: FolderWalk, split: str) -> int:
    """Return the class of a folder: by its name, or by a number if data.classes gives other names than numbers."""
    name = in_nfc(folder.name)
    if name in classes:
        return classes[name]
    is_number = name.isascii() and name.isdecimal()
    if is_number and config.classes and int(name) < len(classes) and not any(known.isdecimal() for known in classes):
        return int(name)
    by_case = {known.casefold(): known for known in classes}
    near = difflib.get_close_matches(name.casefold(), by_case, n=1)
    known = ", ".join(list(classes)[:8]) + (", …" if len(classes) > 8 else "")
    raise InputError(
        f"{printable(folder.path)}: no class of that name; there are {known}"
        + (f"; did you mean '{by_case[near[0]]}'?" if near and not is_number else "")
        + ("; a number is the index of a class only with data.classes" if is_number and not config.classes else "")
        + (_wrapper(walk) or ("" if is_number or split != "test" else _without_labels(folder, walk)))
    )


def _without_labels(folder: Entry, walk: FolderWalk) -> str:
    """Return the end of a message about an unknown class that is the only folder of the test images."""
    is_only = len(walk.top.folders) == 1 and not walk.top.images and not sub_folders(folder)
    return f"; if its images have no labels: data.test: {printable(folder.path)}" if is_only else ""


def _split_off_missing(
    config: Config, samples: dict[str, tuple[Sample, ...]], classes: tuple[str, ...]
) -> dict[str, tuple[Sample, ...]]:
    """Split val and test off train if they have no folders."""
    if "train" not in samples:
        return samples
    shares = {"test": config.test_share, "val": config.val_share}
    missing = [split for split in shares if split not in samples]
    if not missing:
        return samples
    pairs = [(sample, sample.name.removeprefix("train/")) for sample in samples["train"]]
    *parts, train = stable_split(pairs, tuple(shares[split] for split in missing), classes, config.seed)
    return {**samples, **dict(zip(missing, parts, strict=True)), "train": train}


def _require_separate(walks: dict[str, FolderWalk], samples: dict[str, tuple[Sample, ...]]) -> None:
    """Raise InputError if the folder of a split is that of another or lies in it; links are followed.

    The calibration folder may be that of train, unless val or test are split off it.
    """
    for inner, outer in permutations(walks, 2):
        if {inner, outer} == {"train", "calibration"} and samples.keys() & {"val", "test"} <= walks.keys():
            continue
        resolved = walks[inner].root.resolve()
        if any(folder.samefile(walks[outer].root) for folder in (resolved, *resolved.parents)):
            cure = "remove data.calibration to calibrate on images of train" if "calibration" in (inner, outer) else ""
            raise InputError(
                f"{printable(str(walks[inner].root))}: the folder of {inner} is that of {outer} or lies in it "
                f"({printable(str(walks[outer].root))}); {cure or 'give separate folders'}"
            )


def _unlabelled(walk: FolderWalk, split: str) -> tuple[Sample, ...]:
    samples = tuple(Sample(f"{split}/{walk.name(path)}", Path(path), None) for path in walk.all_images())
    if not samples:
        raise InputError(f"{walk.root}: holds no images to calibrate on{_reasons(walk.left_out)}")
    return samples


def _require_folder(folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise InputError(f"data.{key}: {folder}: {'is a file, not a' if folder.exists() else 'no such'} folder")
