"""Write an ImageNet as WebDataset shards: tar files of a few thousand encoded images each."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from compress.images.imagenet_layout import CLASSES_FILE, read_imagenet
from compress.images.samples import Sample
from runtimes import images
from runtimes.console import Console
from runtimes.errors import InputError
from runtimes.files import replacing, write_json, write_text

SCHEMA_VERSION = 1
DESCRIPTION = "shards.json"


def write_shards(root: str, out: Path, images_per_shard: int, seed: int, console: Console) -> dict[str, int]:
    """Copy an ImageNet, unchanged and in an order drawn by the seed, into train-*.tar and val-*.tar in `out`.

    Returns the number of shards per split. Each shard is written atomically, so the same command resumes after an
    interruption. Raises InputError if `out` holds other shards, or if files of the root are misplaced.
    """
    files = read_imagenet(root)
    if files.problems:
        raise InputError(f"{files.problems[0]}; see: compress data check {root}")
    splits = {"train": files.train, "val": files.val}
    names = [[sample.name for sample in samples] for samples in splits.values()]
    digest = hashlib.sha256(repr(names).encode()).hexdigest()
    _describe(out, {"schema_version": SCHEMA_VERSION, "images": digest, "per_shard": images_per_shard, "seed": seed})
    write_text(out / CLASSES_FILE, "".join(f"{name}\n" for name in files.classes))
    total = sum(len(samples) for samples in splits.values())
    done, counts = 0, {}
    for split, samples in splits.items():
        order = np.random.default_rng((seed, len(samples))).permutation(len(samples))
        parts = [order[start : start + images_per_shard] for start in range(0, len(order), images_per_shard)]
        for number, part in enumerate(parts):
            path = out / f"{split}-{number:06d}.tar"
            if not path.exists():
                _write_shard(path, (samples[index] for index in part), split)
            done += len(part)
            console.progress("write shards", done, total)
        counts[split] = len(parts)
    return counts


def _describe(out: Path, description: dict[str, object]) -> None:
    """Write the description of the shards; raise InputError if the folder holds something else."""
    path = out / DESCRIPTION
    if path.exists():
        if json.loads(path.read_text()) != description:
            raise InputError(f"{out}: holds shards of other images or settings; choose another folder")
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another folder")
    write_json(path, description)


def _write_shard(path: Path, samples: Iterable[Sample], split: str) -> None:
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            name = PurePosixPath(sample.name.removeprefix(f"{split}/"))
            stem = str(name.parent / name.name.replace(".", "_", name.name.count(".") - 1).rpartition(".")[0])
            _add(archive, f"{stem}{name.suffix}", images.content(sample.source))
            _add(archive, f"{stem}.cls", str(sample.label).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
