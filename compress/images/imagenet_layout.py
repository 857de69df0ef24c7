"""Read an ImageNet (ILSVRC2012) from class folders, the official tar files or WebDataset shards."""

from __future__ import annotations

import io
import re
import tarfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from compress.images import archives
from compress.images.archives import Member, Slice
from compress.images.folders import (
    OUTSIDE,
    FolderWalk,
    LeftOutFiles,
    count_files,
    listing,
    require_whole_links,
    why_no_image,
)
from compress.images.samples import Sample
from compress.images.synsets import SYNSET, imagenet_synsets
from runtimes.errors import InputError
from runtimes.images import extensions

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT, DEVKIT_TAR = "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12.tar.gz"
META, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
CLASSES_FILE = "classes.txt"
LABEL_SUFFIXES = (".cls",)
SPLIT_OF_SHARDS = {"train": "train", "val": "val", "validation": "val", "test": "val"}


@dataclass
class ImagenetFiles:
    """Classes and images of a root, in ImageNet's two splits. problems: misplaced and missing files, one per line.

    left_out: files that are no images of a class, and need not be.
    """

    classes: tuple[str, ...] = ()
    train: list[Sample] = field(default_factory=list)
    val: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: LeftOutFiles = field(default_factory=LeftOutFiles)


def looks_like_imagenet(root: str) -> bool:
    """Return whether a root is an ImageNet: a remote address, folder of tars, or synsets in a split."""
    folder = Path(root)
    if archives.is_remote(root):
        return True
    splits = [folder / split for split in ("train", "val") if (folder / split).is_dir()]
    names = [entry.name for split in splits for entry in split.iterdir()]
    return any(SYNSET.fullmatch(name) for name in names) or (not names and any(folder.glob("*.tar")))


def read_imagenet(root: str) -> ImagenetFiles:
    """Return all images with their labels, and the problems; raises InputError if the root has none of the layouts.

    root: a folder, or for shards an address that fsspec understands.
    """
    folder = Path(root)
    if not archives.is_remote(root):
        if not folder.is_dir():
            raise InputError(f"data.root: {root}: no such folder")
        if (folder / TRAIN_TAR).is_file() or (folder / VAL_TAR).is_file():
            return _read_tars(folder)
        if (folder / "train").is_dir() or (folder / "val").is_dir():
            return _read_folders(folder)
    shards = archives.list_files(root, "*.tar")
    if not shards:
        raise InputError(
            f"data.root: {root}: holds neither train/ and val/, nor {TRAIN_TAR} and {VAL_TAR}, nor shards *.tar"
        )
    return _read_shards(root, shards)


def _read_folders(root: Path) -> ImagenetFiles:
    files = ImagenetFiles()
    images: dict[str, list[tuple[str, str, str]]] = {}
    for split in ("train", "val"):
        if (root / split).is_dir():
            images[split] = _images_by_synset(root / split, files)
    for folder in listing(str(root), LeftOutFiles()).folders:
        if folder.name not in ("train", "val", DEVKIT):
            files.left_out.add("in a folder beside the splits", *count_files(folder.path))
    files.classes = _sorted_classes([synset for synset, *_ in images.get("train") or images["val"]], root)
    label_of = {synset: label for label, synset in enumerate(files.classes)}
    for split, rows in images.items():
        unknown = sorted({synset for synset, *_ in rows} - set(label_of))
        files.problems += [f"{root / split / synset}: the class is not in train" for synset in unknown]
        getattr(files, split).extend(
            Sample(f"{split}/{synset}/{name}", Path(path), label_of[synset])
            for synset, name, path in rows
            if synset in label_of
        )
    return files


def _images_by_synset(folder: Path, files: ImagenetFiles) -> list[tuple[str, str, str]]:
    """Return synset, name in its folder and path of the images of a split.

    Adds misnamed and empty class folders to the problems. Images beside class folders are left out; without class
    folders, the devkit gives their classes.
    """
    require_whole_links(folder)
    walk = FolderWalk(folder)
    rows: list[tuple[str, str, str]] = []
    for class_folder in walk.top.folders:
        if not SYNSET.fullmatch(class_folder.name):
            files.problems.append(
                f"{class_folder.path}: is not named by a synset such as n01440764; move it out of {folder}"
            )
            continue
        paths = list(walk.images(class_folder, class_folder.name, walk.left_out))
        if not paths:
            files.problems.append(f"{class_folder.path}: holds no images")
        rows += [(class_folder.name, walk.name(path).partition("/")[2], path) for path in paths]
    unsorted = [image.path for image in walk.top.images]
    if unsorted and not rows and folder.name == "val":
        synsets = _validation_synsets(folder.parent, len(unsorted))
        rows = [(synset, walk.name(path), path) for synset, path in zip(synsets, unsorted, strict=True)]
    else:
        for path in unsorted:
            walk.left_out.add(OUTSIDE, path)
    files.left_out.update(walk.left_out)
    return rows


def _read_tars(root: Path) -> ImagenetFiles:
    files, images = ImagenetFiles(), dict[str, list[tuple[str, str, Slice]]]()
    if (root / TRAIN_TAR).is_file():
        path = str(root / TRAIN_TAR)
        images["train"] = []
        for member in archives.members(path):
            synset, _, name = member.name.removeprefix("./").rpartition("/")
            if not SYNSET.fullmatch(synset):
                files.problems.append(f"{path}: {member.name}: is not inside a tar named by a synset")
            elif reason := why_no_image(name):
                files.left_out.add(reason, f"{path}: {member.name}")
            else:
                images["train"].append((synset, name, Slice(path, member.offset, member.size)))
    if (root / VAL_TAR).is_file():
        path = str(root / VAL_TAR)
        members = []
        for member in sorted(archives.members(path), key=lambda member: member.name):
            if reason := why_no_image(PurePosixPath(member.name).name):
                files.left_out.add(reason, f"{path}: {member.name}")
            else:
                members.append(member)
        synsets = _validation_synsets(root, len(members))
        images["val"] = [
            (synset, PurePosixPath(member.name).name, Slice(path, member.offset, member.size))
            for synset, member in zip(synsets, members, strict=True)
        ]
    files.classes = _sorted_classes([synset for synset, *_ in images.get("train") or images["val"]], root)
    label_of = {synset: label for label, synset in enumerate(files.classes)}
    for split, rows in images.items():
        for synset, name, source in sorted(rows, key=lambda row: row[:2]):
            if synset in label_of:
                getattr(files, split).append(Sample(f"{split}/{synset}/{name}", source, label_of[synset]))
            else:
                files.problems.append(f"{source.path}: {name} has the class {synset}, which is not in train")
    return files


def _read_shards(root: str, shards: list[str]) -> ImagenetFiles:
    """Read WebDataset shards: the files of a sample share the part of their name before the first dot."""
    files, rows_of_split = ImagenetFiles(), dict[str, list[tuple[str, Slice, str]]]()
    for path in shards:
        name = PurePosixPath(path).name
        splits = [SPLIT_OF_SHARDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_OF_SHARDS]
        if not splits:
            files.problems.append(f"{path}: its name contains neither train nor val, as train-000000.tar does")
            continue
        rows_of_split.setdefault(splits[0], []).extend(_read_shard(path, files.problems))
    class_list = archives.read_text(f"{root.rstrip('/')}/{CLASSES_FILE}")
    label_texts = [text for rows in rows_of_split.values() for _, _, text in rows]
    files.classes = _classes_of_shards(root, class_list, label_texts)
    label_of = {synset: label for label, synset in enumerate(files.classes)}
    for split, rows in rows_of_split.items():
        for key, source, text in sorted(rows, key=lambda row: row[0]):
            label = int(text) if text.isdecimal() else label_of.get(text, -1)
            if 0 <= label < len(files.classes):
                getattr(files, split).append(Sample(f"{split}/{key}", source, label))
            else:
                files.problems.append(f"{source.path}: {key}: its label {text!r} is none of the classes")
    return files


def _read_shard(path: str, problems: list[str]) -> list[tuple[str, Slice, str]]:
    """Return (key, image, text of the label file) of each complete sample; append incomplete ones to the problems."""
    samples: dict[str, dict[str, Member]] = defaultdict(dict)
    for member in archives.members(path, LABEL_SUFFIXES):
        folder, _, name = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = name.partition(".")
        samples[f"{folder}/{stem}" if folder else stem][f".{suffix}".lower()] = member
    rows = []
    for key, by_suffix in samples.items():
        image = next((by_suffix[suffix] for suffix in sorted(by_suffix) if suffix in extensions()), None)
        label = next((by_suffix[suffix].text for suffix in LABEL_SUFFIXES if suffix in by_suffix), None)
        if image is None or label is None:
            problems.append(f"{path}: {key} has no {'image' if image is None else 'file .cls'}")
        else:
            rows.append((f"{key}{PurePosixPath(image.name).suffix}", Slice(path, image.offset, image.size), label))
    return rows


def _classes_of_shards(root: str, class_list: str | None, label_texts: list[str]) -> tuple[str, ...]:
    """Return the classes in the order of their labels: from classes.txt, from textual labels, or ImageNet's 1000."""
    if class_list is not None:
        names = [line.strip() for line in class_list.splitlines() if line.strip()]
        if len(_sorted_classes(names, root)) < len(names):
            raise InputError(f"{root}: {CLASSES_FILE} names a class twice; each line is the class of one label")
        return tuple(names)  # the order of the labels need not be alphabetical
    if not all(text.isdecimal() for text in label_texts):
        return _sorted_classes(label_texts, root)
    if max(map(int, label_texts), default=0) != 999:
        raise InputError(f"{root}: has no {CLASSES_FILE}; write the class of each label into it, one per line")
    return tuple(imagenet_synsets())


def _sorted_classes(synsets: list[str], root: str | Path) -> tuple[str, ...]:
    classes = tuple(sorted(set(synsets)))
    if len(classes) < 2:
        raise InputError(f"{root}: must hold at least 2 classes, has {len(classes)}")
    return classes


def _validation_synsets(root: Path, images: int) -> list[str]:
    """Return the class of each of so many validation images in the order of their names, from the devkit."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    meta, ground_truth = (_devkit_file(root, name) for name in (META, GROUND_TRUTH))
    try:
        table = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = table[table["num_children"] == 0]
        synset_of = dict(zip(leaves["ILSVRC2012_ID"].tolist(), leaves["WNID"].tolist(), strict=True))
        synsets = [str(synset_of[int(line)]) for line in ground_truth.split()]
    except (ValueError, KeyError, IndexError, TypeError, MatReadError) as error:
        raise InputError(f"{root}: its devkit is not that of ILSVRC2012 ({error}); download it again") from error
    if len(synsets) != images:
        raise InputError(f"{root}: the devkit labels {len(synsets)} validation images, but there are {images}")
    return synsets


def _devkit_file(root: Path, name: str) -> bytes:
    """Return a file of the devkit, unpacked or in its tar file."""
    if (root / DEVKIT / name).is_file():
        return (root / DEVKIT / name).read_bytes()
    path = root / DEVKIT_TAR
    if not path.is_file():
        raise InputError(f"{root}: the classes of the validation images are in {DEVKIT_TAR}; add it to the folder")
    try:
        with tarfile.open(path) as archive:
            stream = archive.extractfile(f"{DEVKIT}/{name}")
            assert stream is not None
            return stream.read()
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise InputError(f"{path}: can't read {name} ({error}); download it again") from error
