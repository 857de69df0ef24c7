"""ImageNet's classes, read from the lists in the package timm without importing it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from runtimes.errors import UnavailableError

SYNSET = re.compile(r"n\d{8}")


def imagenet_synsets() -> list[str]:
    """Return the 1000 synsets of ILSVRC2012 in the order of a network's outputs.

    Raises UnavailableError if timm is not installed.
    """
    text = _read("imagenet_synsets.txt")
    if text is None:
        raise UnavailableError("ImageNet's classes are in the package timm: pip install timm")
    return text.split()


def class_names(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return readable class names: synsets get their first word appended if timm is installed; others are unchanged."""
    text = _read("imagenet_synset_to_lemma.txt") if all(SYNSET.fullmatch(label) for label in labels) else None
    lemmas = dict(line.split("\t", 1) for line in (text or "").splitlines() if "\t" in line)
    return tuple(f"{label} {lemmas[label].split(',')[0]}" if label in lemmas else label for label in labels)


def _read(name: str) -> str | None:
    """Return a file of timm's lists, None if timm is not installed."""
    package = importlib.util.find_spec("timm")
    if package is None or not package.submodule_search_locations:
        return None
    return (Path(package.submodule_search_locations[0]) / "data/_info" / name).read_text("utf-8")
