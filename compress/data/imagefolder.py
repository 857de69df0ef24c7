"""Folders of class folders: `root/train/cat/1.jpg`, or `root/cat/1.jpg` to split by seed."""

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
    """Folders of class folders: `root`, or single folders for the splits that the recipe needs.

    root: folder of train/ and optionally val/ and test/, each with one folder per class; or of the class folders.
    train, val, test: folders of class folders, instead of those in root. test may hold images without labels; the gate
    then needs min_agreement.
    calibration: folder of images for INT8 calibration, without labels.
    val_share, test_share: shares of the images to split off if the folder of that split is missing.
    classes: text file with the name of one class folder per line, in the order of the network's outputs, or `imagenet`
    (the 1000 synsets; folders may also be named by class index). By default the sorted names of the class folders.
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
    folders = _split_folders(config)
    classes = _classes(config, folders)
    samples = {split: _samples(folder, classes, split) for split, folder in folders.items()}
    if config.root and "train" not in samples:
        samples["train"] = _samples(config.root, classes, "")
    samples = _split_off_missing(config, samples, tuple(classes))
    _require_disjoint(samples)
    calibration = _unlabelled(config.calibration, "calibration") if config.calibration else ()
    return Data(
        tuple(classes),
        samples.get("train", ()),
        samples.get("val", ()),
        samples.get("test", ()),
        calibration=calibration,
    )


def _split_folders(config: Config) -> dict[str, Path]:
    """Return the folder of each split that has one, which excludes class folders directly in root."""
    folders: dict[str, Path] = {}
    if config.root:
        _require_folder(config.root, "root")
        folders = {name: config.root / name for name in ("train", "val", "test") if (config.root / name).is_dir()}
        if folders and "train" not in folders and not config.train:
            raise InputError(f"{config.root}: has {', '.join(folders)} but no train folder; add one or give data.train")
    for split in ("train", "val", "test"):
        if folder := getattr(config, split):
            _require_folder(folder, split)
            folders[split] = folder
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
    """Return the images of a folder of class folders.

    Raises InputError for an unknown class and for an empty class folder. A class without a folder has no images.
    """
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
    pairs = [(sample, None) for sample in samples["train"]]
    *parts, train = stratified_split(pairs, tuple(shares[split] for split in missing), classes, config.seed)
    return {**samples, **dict(zip(missing, parts, strict=True)), "train": train}


def _require_disjoint(samples: dict[str, tuple[Sample, ...]]) -> None:
    """Raise InputError if a file is in two splits, which would make the accuracy meaningless."""
    for first, second in combinations(samples, 2):
        shared = {sample.source for sample in samples[first]} & {sample.source for sample in samples[second]}
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
