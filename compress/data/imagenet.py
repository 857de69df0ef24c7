"""ImageNet (ILSVRC2012) as people have it: folders by synset, the official tar files, or WebDataset shards."""

from __future__ import annotations

import io
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from compress.images import archives
from compress.images.archives import Member, Slice
from compress.images.samples import Data, Sample
from compress.images.synsets import SYNSET, imagenet_synsets
from compress.recipe.section import Config as Section
from runtimes.errors import InputError
from runtimes.images import EXTENSIONS

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT, DEVKIT_TAR = "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz"
META, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
CLASSES_FILE = "classes.txt"
LABEL_SUFFIXES = (".cls",)
SPLIT_OF_SHARDS = {"train": "train", "val": "val", "validation": "val", "test": "val"}


class Config(Section):
    """root: a folder, or for shards an address that fsspec knows, as s3://bucket/imagenet.

    It holds train/ and val/ by synset (val/ may hold the images themselves, beside the devkit), or the official
    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or WebDataset shards named
    train-*.tar and val-*.tar with classes.txt. ImageNet's own validation images are the split test.
    val_per_class: so many images of each class are held out of train to choose by, the split val.
    seed: of that choice.
    """

    name: Literal["imagenet"] = "imagenet"
    root: str
    val_per_class: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


@dataclass
class Found:
    """What a root holds, before it is split. problems: what is in the wrong place, one line each."""

    classes: tuple[str, ...] = ()
    train: list[Sample] = field(default_factory=list)
    val: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load(config: Config) -> Data:
    """Find the images; raises InputError for a root that is none of the layouts, or has something in a wrong place."""
    found = find(config.root)
    if found.problems:
        more = f", and {len(found.problems) - 1} problems more" if len(found.problems) > 1 else ""
        raise InputError(f"{found.problems[0]}{more}; see: compress data check {config.root}")
    train, val = _held_out(found, config)
    return Data(found.classes, train, val, tuple(found.val))


def find(root: str) -> Found:
    """Return all images with their labels, and what is wrong; raises InputError for a root that is no ImageNet."""
    folder = Path(root)
    if not archives.is_remote(root):
        if not folder.is_dir():
            raise InputError(f"data.root: {root}: no such folder")
        if (folder / TRAIN_TAR).is_file() or (folder / VAL_TAR).is_file():
            return _in_tars(folder)
        if (folder / "train").is_dir() or (folder / "val").is_dir():
            return _in_folders(folder)
    shards = archives.listed(root, "*.tar")
    if not shards:
        raise InputError(
            f"data.root: {root}: holds neither train/ and val/, nor {TRAIN_TAR} and {VAL_TAR}, nor shards *.tar"
        )
    return _in_shards(root, shards)


def _in_folders(root: Path) -> Found:
    found = Found()
    named: dict[str, list[tuple[str, Path]]] = {}
    for split in ("train", "val"):
        if (root / split).is_dir():
            named[split] = _by_synset(root / split, found)
    flat = [path for path in sorted((root / "val").glob("*")) if _is_image(path.name)]
    if flat and not named["val"]:
        labels = _validation_synsets(root, len(flat))
        named["val"] = list(zip(labels, flat, strict=True))
    found.classes = _classes([synset for synset, _ in named.get("train") or named["val"]], root)
    index = {synset: label for label, synset in enumerate(found.classes)}
    for split, pairs in named.items():
        stray = sorted({synset for synset, _ in pairs} - set(index))
        found.problems += [f"{root / split / synset}: the class is not in train" for synset in stray]
        getattr(found, split).extend(
            Sample(f"{split}/{synset}/{path.name}", path, index[synset]) for synset, path in pairs if synset in index
        )
    return found


def _by_synset(folder: Path, found: Found) -> list[tuple[str, Path]]:
    """Return (synset, file) for a folder of class folders, and note what is no class or empty."""
    pairs: list[tuple[str, Path]] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if not SYNSET.fullmatch(path.name):
            found.problems.append(f"{path}: is not named by a synset, as n01440764 is; move it away")
            continue
        files = [one for one in sorted(path.iterdir()) if _is_image(one.name)]
        if not files:
            found.problems.append(f"{path}: holds no images")
        pairs += [(path.name, one) for one in files]
    return pairs


def _in_tars(root: Path) -> Found:
    found, named = Found(), dict[str, list[tuple[str, str, Slice]]]()
    if (root / TRAIN_TAR).is_file():
        path = str(root / TRAIN_TAR)
        named["train"] = []
        for one in archives.members(path):
            synset, _, name = one.name.removeprefix("./").rpartition("/")
            if not SYNSET.fullmatch(synset):
                found.problems.append(f"{path}: {one.name}: is in no tar that is named by a synset")
            elif _is_image(name):
                named["train"].append((synset, name, Slice(path, one.offset, one.size)))
    if (root / VAL_TAR).is_file():
        path = str(root / VAL_TAR)
        images = sorted((one for one in archives.members(path) if _is_image(one.name)), key=lambda one: one.name)
        synsets = _validation_synsets(root, len(images))
        named["val"] = [
            (synset, PurePosixPath(one.name).name, Slice(path, one.offset, one.size))
            for synset, one in zip(synsets, images, strict=True)
        ]
    found.classes = _classes([synset for synset, *_ in named.get("train") or named["val"]], root)
    index = {synset: label for label, synset in enumerate(found.classes)}
    for split, rows in named.items():
        for synset, name, source in sorted(rows, key=lambda row: row[:2]):
            if synset in index:
                getattr(found, split).append(Sample(f"{split}/{synset}/{name}", source, index[synset]))
            else:
                found.problems.append(f"{source.path}: {name} is of the class {synset}, which is not in train")
    return found


def _in_shards(root: str, shards: list[str]) -> Found:
    """Read WebDataset shards: files of one sample are neighbours that differ behind the first dot of their name."""
    found, labelled = Found(), dict[str, list[tuple[str, Slice, str]]]()
    for path in shards:
        name = PurePosixPath(path).name
        words = [SPLIT_OF_SHARDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_OF_SHARDS]
        if not words:
            found.problems.append(f"{path}: its name says neither train nor val, as in train-000000.tar")
            continue
        labelled.setdefault(words[0], []).extend(_samples_of_shard(path, found))
    given = archives.read_text(f"{root.rstrip('/')}/{CLASSES_FILE}")
    texts = [text for rows in labelled.values() for _, _, text in rows]
    found.classes = _classes_of_shards(root, given, texts)
    index = {synset: label for label, synset in enumerate(found.classes)}
    for split, rows in labelled.items():
        for key, source, text in sorted(rows, key=lambda row: row[0]):
            label = int(text) if text.isdecimal() else index.get(text, -1)
            if 0 <= label < len(found.classes):
                getattr(found, split).append(Sample(f"{split}/{key}", source, label))
            else:
                found.problems.append(f"{source.path}: {key}: its label {text!r} is none of the classes")
    return found


def _samples_of_shard(path: str, found: Found) -> list[tuple[str, Slice, str]]:
    parts: dict[str, dict[str, Member]] = defaultdict(dict)
    for one in archives.members(path, LABEL_SUFFIXES):
        folder, _, name = one.name.removeprefix("./").rpartition("/")
        stem, _, suffix = name.partition(".")
        parts[f"{folder}/{stem}" if folder else stem][f".{suffix}".lower()] = one
    rows = []
    for key, files in parts.items():
        image = next((files[suffix] for suffix in sorted(files) if suffix in EXTENSIONS), None)
        label = next((files[suffix].text for suffix in LABEL_SUFFIXES if suffix in files), None)
        if image is None or label is None:
            found.problems.append(f"{path}: {key} has no {'image' if image is None else 'file .cls'}")
        else:
            rows.append((f"{key}{PurePosixPath(image.name).suffix}", Slice(path, image.offset, image.size), label))
    return rows


def _classes_of_shards(root: str, given: str | None, texts: list[str]) -> tuple[str, ...]:
    if given is not None:
        names = [line.strip() for line in given.splitlines() if line.strip()]
        if len(_classes(names, root)) < len(names):
            raise InputError(f"{root}: {CLASSES_FILE} names a class twice; each line is the class of one label")
        return tuple(names)  # in the order of the labels, which need not be the alphabet's
    if not all(text.isdecimal() for text in texts):
        return _classes(texts, root)
    if max(map(int, texts), default=0) != 999:
        raise InputError(f"{root}: has no {CLASSES_FILE}, which names the classes of its labels, one a line")
    return tuple(imagenet_synsets())


def _classes(synsets: list[str], root: str | Path) -> tuple[str, ...]:
    classes = tuple(sorted(set(synsets)))
    if len(classes) < 2:
        raise InputError(f"{root}: must hold at least 2 classes, has {len(classes)}")
    return classes


def _validation_synsets(root: Path, images: int) -> list[str]:
    """Return the class of each validation image in the order of their names, from the devkit."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    meta, truth = (_of_devkit(root, name) for name in (META, GROUND_TRUTH))
    try:
        table = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = table[table["num_children"] == 0]
        synset_of = dict(zip(leaves["ILSVRC2012_ID"].tolist(), leaves["WNID"].tolist(), strict=True))
        synsets = [str(synset_of[int(line)]) for line in truth.split()]
    except (ValueError, KeyError, IndexError, TypeError, MatReadError) as error:
        raise InputError(f"{root}: its devkit is not that of ILSVRC2012 ({error}); fetch it again") from error
    if len(synsets) != images:
        raise InputError(f"{root}: the devkit labels {len(synsets)} validation images, but there are {images}")
    return synsets


def _of_devkit(root: Path, name: str) -> bytes:
    if (root / DEVKIT / name).is_file():
        return (root / DEVKIT / name).read_bytes()
    path = root / DEVKIT_TAR
    if not path.is_file():
        raise InputError(f"{root}: the classes of the validation images are in {DEVKIT_TAR}; put it there")
    try:
        with tarfile.open(path) as archive:
            stream = archive.extractfile(f"{DEVKIT}/{name}")
            assert stream is not None
            return stream.read()
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise InputError(f"{path}: {name} can't be read ({error}); fetch it again") from error


def _held_out(found: Found, config: Config) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return train and val: of each class some images, drawn by the seed, go to val."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for place, sample in enumerate(found.train):
        assert sample.label is not None
        of_class[sample.label].append(place)
    rng = np.random.default_rng(config.seed)
    held: set[int] = set()
    for label in sorted(of_class):
        places = of_class[label]
        if len(places) <= config.val_per_class:
            raise InputError(
                f"class {found.classes[label]} has {len(places)} images, too few to hold out "
                f"data.val_per_class: {config.val_per_class}"
            )
        held |= {places[index] for index in rng.permutation(len(places))[: config.val_per_class].tolist()}
    train = tuple(sample for place, sample in enumerate(found.train) if place not in held)
    return train, tuple(found.train[place] for place in sorted(held))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS and not PurePosixPath(name).name.startswith(".")
