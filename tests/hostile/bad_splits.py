"""Splits that share images, and damaged folders of runs."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from case import NO_JSON, SIDE, Case, artifact_in, written
from PIL import Image

SPLITS = ("train", "val", "test")
CLASSES = ("a", "b")


def splits(folder: Path) -> Iterator[Case]:
    """Yield recipes whose splits share folders or images."""
    for name, (settings, copies, named) in _overlaps().items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        _images(place / "data")
        for source, copy in copies:
            for path in sorted((place / "data" / source).rglob("*.png")):
                target = place / "data" / copy / path.relative_to(place / "data" / source)
                written(target, path.read_bytes())
        (place / "link").symlink_to(place / "data" / "test")
        recipe = {
            "data": {"name": "imagefolder", **{key: str(place / value) for key, value in settings.items()}},
            "preprocessing": {"resize": SIDE, "crop": SIDE},
            "model": {"arch": "mobilenet_v2", "width": 0.25},
            "stages": [{"stage": "train", "epochs": 4, "batch_size": 4}],
        }
        content = yaml.safe_dump(recipe).encode()
        written(place / "recipe.yaml", content)
        yield Case(name, place, ["run", str(place / "recipe.yaml"), "--out", str(place / "run")], named, content)


def run_folders(folder: Path) -> Iterator[Case]:
    """Yield artifacts in folders of runs whose files are damaged."""
    model = artifact_in(folder / "model")
    for name, (file, content) in _damages().items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        _images(place / "data")
        artifact = place / "finished" / "artifacts" / model.name
        shutil.copytree(model.parent, artifact.parent)
        recipe = {"data": {"name": "imagefolder", "root": str(place / "data")}}
        written(place / "finished" / "recipe.yaml", yaml.safe_dump(recipe).encode())
        written(place / "finished" / "splits.json", json.dumps({split: {} for split in SPLITS}).encode())
        written(place / "finished" / file, content)
        arguments = ["evaluate", str(artifact), "--data", f"imagefolder:{place / 'data'}"]
        yield Case(name, place, arguments, "finished", file.encode() + content)


def _images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{index}.png")


def _overlaps() -> dict[str, tuple[dict[str, str], list[tuple[str, str]], str]]:
    """Return settings, pairs of folders to copy, and text of the error."""
    root = {"root": "data"}
    return {
        "calibration is test": ({**root, "calibration": "data/test"}, [], "calibration"),
        "calibration holds test": ({**root, "calibration": "data"}, [], "calibration"),
        "calibration lies in test": ({**root, "calibration": "data/test/a"}, [], "calibration"),
        "calibration is a link to test": ({**root, "calibration": "link"}, [], "calibration"),
        "calibration is a copy of test": ({**root, "calibration": "data/copy"}, [("test", "copy")], "test/a/0.png"),
        "val is test": ({**root, "val": "data/test"}, [], "of val is that of test"),
        "test is a link to test, and so is val": ({**root, "val": "link"}, [], "of val is that of test"),
        "val is a copy of test": ({**root, "val": "data/copy"}, [("test", "copy")], "'val'"),
        "train is a copy of test": ({**root, "train": "data/copy"}, [("test", "copy")], "'train'"),
        "a class of train is a copy of test": (
            {**root, "train": "data/copy"}, [("test/a", "copy/a"), ("train/b", "copy/b")], "'a' in the split 'train'"
        ),
    }  # fmt: skip


def _damages() -> dict[str, tuple[str, bytes]]:
    damaged = {f"splits.json is {text[:20]!r}": ("splits.json", text) for text in NO_JSON}
    damaged |= {
        f"seen.npz is {text[:20]!r}": ("seen.npz", text) for text in (b"", b"PK\x03\x04", b"\x93NUMPY", b"text")
    }
    recipes = (b"", b"[]", b"data: 3", b"data: {}", b"data: {name: nothing}", b"data: {name: imagefolder, root: 3}")
    return damaged | {f"recipe.yaml is {text!r}": ("recipe.yaml", text) for text in recipes}
