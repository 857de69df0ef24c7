"""A small ImageNet in its three layouts, with the kinds of files that the real one has."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from compress.data import synthetic

SYNSETS = ("n01440764", "n02105855", "n03026506")
IDS = {"n01440764": 3, "n02105855": 1, "n03026506": 2}  # ILSVRC2012_ID is not the order of the names
DEVKIT_FOLDER = "ILSVRC2012_devkit_t12/data"
TRUNCATED = ("train/n02105855/n02105855_2.JPEG", "val/n03026506/ILSVRC2012_val_00000003.JPEG")


@dataclass(frozen=True)
class SmallImagenet:
    """train, val: encoded images by their path in the folder layout. val is in the order of the devkit's lines."""

    train: dict[str, bytes]
    val: dict[str, bytes]


def make_images(images_per_class: int = 16, val_per_class: int = 6, size: int = 48, noise: float = 12) -> SmallImagenet:
    """Return the images: JPEGs of several shapes, a PNG named .JPEG, a CMYK JPEG, and a truncated one in each split."""
    config = synthetic.Config(classes=3, images_per_class=images_per_class + val_per_class, size=size, noise=noise)
    data = synthetic.load(config)
    of_class: dict[int, list[bytes]] = {label: [] for label in range(3)}
    for sample in sorted((*data.train, *data.val, *data.test), key=lambda sample: sample.name):
        assert isinstance(sample.source, bytes)
        assert sample.label is not None
        of_class[sample.label].append(sample.source)
    train, val = {}, {}
    for label, synset in enumerate(SYNSETS):
        for index in range(images_per_class):
            train[f"train/{synset}/{synset}_{index}.JPEG"] = _encoded(of_class[label].pop(), index)
    for index in range(val_per_class * 3):
        synset = SYNSETS[index % 3]
        val[f"val/{synset}/ILSVRC2012_val_{index + 1:08d}.JPEG"] = _encoded(of_class[index % 3].pop(), index)
    for split, name in zip((train, val), TRUNCATED, strict=True):
        split[name] = split[name][: len(split[name]) // 2]
    return SmallImagenet(train, val)


def in_folders(root: Path, images: SmallImagenet) -> Path:
    """Write train/ and val/ by synset."""
    for name, content in {**images.train, **images.val}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def in_tars(root: Path, images: SmallImagenet) -> Path:
    """Write the three official files."""
    root.mkdir(parents=True, exist_ok=True)
    inner: dict[str, dict[str, bytes]] = {}
    for name, content in images.train.items():
        _, synset, file = name.split("/")
        inner.setdefault(synset, {})[file] = content
    (root / "ILSVRC2012_img_train.tar").write_bytes(
        tar({f"{synset}.tar": tar(files) for synset, files in inner.items()})
    )
    flat = {Path(name).name: content for name, content in sorted(images.val.items(), reverse=True)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(flat))
    folder = DEVKIT_FOLDER
    files = {f"{folder}/meta.mat": meta(), f"{folder}/ILSVRC2012_validation_ground_truth.txt": ground_truth(images)}
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar(files, "w:gz"))
    return root


def meta() -> bytes:
    """Return the devkit's table: the classes, then their common ancestor."""
    rows = [(IDS[synset], synset, "a word, another", 0) for synset in sorted(IDS, key=IDS.__getitem__)]
    rows.append((4, "n00001740", "entity", 3))
    table = np.zeros(len(rows), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")])
    for index, row in enumerate(rows):
        table[index] = row
    stream = io.BytesIO()
    savemat(stream, {"synsets": table})
    return stream.getvalue()


def ground_truth(images: SmallImagenet) -> bytes:
    """Return the devkit's line for each validation image in the order of their names."""
    synsets = {Path(name).name: name.split("/")[1] for name in images.val}
    return "".join(f"{IDS[synsets[name]]}\n" for name in sorted(synsets)).encode()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    """Return a tar of the files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _encoded(png: bytes, index: int) -> bytes:
    """Encode as JPEG of varying size; the fifth image is CMYK, the sixth a PNG."""
    image = Image.open(io.BytesIO(png))
    image = image.resize((image.width + 4 * (index % 4), image.height + 3 * (index % 3)))
    stream = io.BytesIO()
    if index == 5:
        image.save(stream, "PNG")
    else:
        image.convert({4: "CMYK"}.get(index, "RGB")).save(stream, "JPEG", quality=92)
    return stream.getvalue()
