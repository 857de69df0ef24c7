"""Installed packages with entry points, without pip: source files and a dist-info folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path, name: str, version: str, files: Mapping[str, str], points: Mapping[str, Mapping[str, str]]
) -> None:
    """Write a package into a folder of sys.path. points: module by name, by group."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
              for group, entries in points.items())  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(groups))
