"""Write the report of a finished run into its folder: report.json, documents, artifacts and thumbnails."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.report import documents
from compress.report.build import RunOutputs, build
from compress.report.report import ARTIFACTS, FLIPPED, REPORT_FILE, Report
from runtimes.artifact import Artifact, manifest_path
from runtimes.evalset import EvalSet
from runtimes.files import replacing, write_json
from runtimes.images import as_image

THUMBNAIL_SIDE = 128  # pixels


def publish(outputs: RunOutputs, folder: Path) -> Report:
    """Build a run's report, copy its artifacts to `artifacts/` and write report.json and the documents; return it."""
    report = replace(build(outputs), folder=folder)
    _copy(outputs.artifacts, folder / ARTIFACTS)
    indices = {flip.index for flips in report.flips.values() for flip in flips.shown}
    write_thumbnails(folder / FLIPPED, outputs.images, indices)
    write_json(folder / REPORT_FILE, report.to_json())
    documents.write(report, folder)
    return report


def _copy(artifacts: Sequence[Artifact], folder: Path) -> None:
    """Copy artifacts and manifests, and remove the files of an earlier recipe from the folder."""
    sources = [path for artifact in artifacts for path in (artifact.path, manifest_path(artifact.path))]
    for source in sources:
        with replacing(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
    for path in folder.iterdir():
        if path.name not in {source.name for source in sources}:
            path.unlink()


def write_thumbnails(folder: Path, images: EvalSet, indices: set[int]) -> None:
    """Write small JPEGs of the images at those indices, in place of older ones."""
    if folder.exists():
        shutil.rmtree(folder)
    for index in sorted(indices):
        picture = as_image(images.pixels(np.asarray([index]))[0])
        picture = picture.convert("L" if picture.mode == "L" else "RGB")  # a JPEG has no alpha channel
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        with replacing(folder / f"{index}.jpg") as temporary:
            picture.save(temporary, format="jpeg", quality=80)
