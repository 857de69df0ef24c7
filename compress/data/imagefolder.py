"""Any folder of class folders: `root/train/cat/1.jpg`, or `root/cat/1.jpg` to be split by seed."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from compress.images.samples import Data, Sample, stratified_split
from compress.images.synsets import imagenet_synsets
from compress.recipe.section import Config as Section
from runtimes.errors import InputError
from runtimes.images import EXTENSIONS


class Config(Section):
    """Either `root`, or single folders for what the recipe needs.

    root: holds train/, and val/ and test/ where there are any, each of class folders; or the class folders themselves.
    train, val, test: folders of class folders, in place of those in root. test may hold images without labels: what
    ships is judged by its agreement with the baseline then. calibration: a folder of images, labels not needed.
    val_share and test_share: of the images to split where a folder is missing.
    classes: a text file with one class folder's name a line, in the order of the network's outputs, or "imagenet" (its
    1000 synsets; a folder may also be named by the class's index). Without it the sorted names of the class folders.
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
    def _names_a_folder(self) -> Config:
        if not (self.root or self.train or self.test):
            raise ValueError("must name root, or train or test; for example --set data.root=/data/flowers")
        return self


def load(config: Config) -> Data:
    """Read the folders' names; raises InputError for a folder that is missing, or a class without images."""
    folders = _split_folders(config)
    classes = _classes(config, folders)
    found = {split: _samples(folder, classes, split) for split, folder in folders.items()}
    if config.root and "train" not in found:
        found["train"] = _samples(config.root, classes, "")
    found = _split_the_rest(config, found, tuple(classes))
    _require_disjoint(found)
    calibration = _unlabelled(config.calibration, "calibration") if config.calibration else ()
    return Data(
        tuple(classes), found.get("train", ()), found.get("val", ()), found.get("test", ()), calibration=calibration
    )


def _split_folders(config: Config) -> dict[str, Path]:
    """Return the folder of each split that has one; root's own class folders are no split."""
    folders: dict[str, Path] = {}
    if config.root:
        _require_folder(config.root, "root")
        folders = {name: config.root / name for name in ("train", "val", "test") if (config.root / name).is_dir()}
        if folders and "train" not in folders and not config.train:
            raise InputError(f"{config.root}: has {', '.join(folders)} but no train folder")
    for split in ("train", "val", "test"):
        if given := getattr(config, split):
            _require_folder(given, split)
            folders[split] = given
    return folders


def _classes(config: Config, folders: dict[str, Path]) -> dict[str, int]:
    """Return the index of each class name."""
    if config.classes == "imagenet":
        return {synset: index for index, synset in enumerate(imagenet_synsets())}
    if config.classes is not None:
        if not config.classes.is_file():
            raise InputError(f"data.classes: {config.classes}: no such file")
        try:
            lines = config.classes.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{config.classes}: is not UTF-8 text ({error})") from error
        names = [line.strip() for line in lines if line.strip()]
    else:
        first = folders.get("train") or config.root or folders["test"]
        names = sorted(path.name for path in first.iterdir() if path.is_dir() and not path.name.startswith("."))
    where = config.classes or folders.get("train") or config.root or folders["test"]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InputError(f"{where}: names the class '{repeated[0]}' twice")
    if len(names) < 2:
        raise InputError(f"{where}: must hold at least 2 classes, has {len(names)}")
    return {name: index for index, name in enumerate(names)}


def _samples(folder: Path, classes: dict[str, int], split: str) -> tuple[Sample, ...]:
    """Return the images of a folder of class folders; only a class file may name classes that have no folder."""
    samples: list[Sample] = []
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = classes.get(class_folder.name)
        if label is None and class_folder.name.isdecimal() and int(class_folder.name) < len(classes):
            label = int(class_folder.name)
        if label is None:
            known = ", ".join(list(classes)[:8]) + (", …" if len(classes) > 8 else "")
            raise InputError(f"{class_folder}: no class of that name; there are {known}")
        files = _image_files(class_folder)
        if not files:
            raise InputError(
                f"{class_folder}: class '{class_folder.name}' has no images; add some or remove the folder"
            )
        samples += [Sample(f"{split}/{file.relative_to(folder.resolve())}".lstrip("/"), file, label) for file in files]
    if not samples and split == "test" and _image_files(folder):
        return _unlabelled(folder, split)
    if not samples:
        raise InputError(f"{folder}: holds no class folders; expected {folder}/CLASS/image.jpg")
    return tuple(samples)


def _split_the_rest(
    config: Config, found: dict[str, tuple[Sample, ...]], classes: tuple[str, ...]
) -> dict[str, tuple[Sample, ...]]:
    """Take val and test from train where there are no folders for them."""
    if "train" not in found:
        return found
    shares = {"test": config.test_share, "val": config.val_share}
    missing = [split for split in shares if split not in found]
    if not missing:
        return found
    pairs = [(sample, None) for sample in found["train"]]
    *parts, train = stratified_split(pairs, tuple(shares[split] for split in missing), classes, config.seed)
    return {**found, **dict(zip(missing, parts, strict=True)), "train": train}


def _require_disjoint(found: dict[str, tuple[Sample, ...]]) -> None:
    """Raise where a file is in two splits, because a test on what was trained on proves nothing."""
    for first, second in combinations(found, 2):
        shared = {sample.source for sample in found[first]} & {sample.source for sample in found[second]}
        if shared:
            raise InputError(
                f"{len(shared)} images are in both {first} and {second}, for example {min(map(str, shared))}"
            )


def _unlabelled(folder: Path, split: str) -> tuple[Sample, ...]:
    _require_folder(folder, split)
    samples = tuple(
        Sample(f"{split}/{file.relative_to(folder.resolve())}", file, None) for file in _image_files(folder)
    )
    if not samples:
        raise InputError(f"{folder}: holds no images to calibrate on")
    return samples


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.resolve().rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())


def _require_folder(folder: Path, key: str) -> None:
    if not folder.is_dir():
        raise InputError(f"data.{key}: {folder}: {'is a file, not a' if folder.exists() else 'no such'} folder")
