"""Choose the images on which artifacts are evaluated, without those that their runs learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from compress.images.copies import digests_of
from compress.images.exclusion import SEEN as SEEN_SPLITS
from compress.images.samples import Sample
from compress.pipeline import finished_run
from compress.pipeline.finished_run import LABELLED, FinishedRun
from compress.pipeline.run_folder import SEEN, SPLITS
from compress.recipe import named_data
from compress.report.report import ARTIFACTS
from runtimes.artifact import Artifact
from runtimes.errors import InputError


@dataclass(frozen=True)
class Choice:
    """Images to evaluate. notes: what was left out and why, and which images a run has seen, one line each."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def choose(named: str, split: str, artifacts: Sequence[Artifact], all_images: bool) -> Choice:
    """Return the images of a split of `NAME[:ROOT]`, without those that the artifacts' runs learned from.

    For the data set of a run, they are those that its splits.json lists. Everywhere, images with the bytes of an image
    of a run's train or val split are left out; for `split` val, of train only. all_images: of all splits, and nothing
    is left out. Raises InputError if nothing remains.
    """
    runs, notes = _runs(artifacts)
    config = named_data.config_of(named)
    is_own = {run: run.owns(config, split) for run in runs}
    own = next((run for run in runs if is_own[run]), None)
    data = named_data.load_config(own.config if own else config)
    notes = [*data.notes(), *notes]
    everything = tuple(sample for name in LABELLED for sample in data.split(name))
    samples = everything if all_images else data.split(split)
    if own and not all_images:
        samples = _listed(own, everything, split, notes)
    if not samples:
        raise InputError(f"--data {named}: its split '{split}' has no images")
    if runs:
        samples = _unseen(samples, is_own, () if all_images else _learned(split), notes)
    if not samples:
        raise InputError(f"--data {named}: {notes[-1]}; no image remains")
    notes += _emptied(data.classes, data.split(split), samples)
    return Choice(data.classes, samples, tuple(notes))


def _emptied(classes: Sequence[str], before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """Return a line about the classes of which no image remains."""
    labels = {sample.label for sample in before} - {sample.label for sample in after} - {None}
    names = [name for label, name in enumerate(classes) if label in labels]
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return [f"no image remains of {len(names)} of {len(classes)} classes: {listed}"] if names else []


def seen_in_evalset(folder: Path, names: Sequence[str], artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """Return a note for each split of SEEN_SPLITS with images of an evaluation set in the folder of an artifact's run.

    Elsewhere, the names of images say nothing.
    """
    runs, _ = _runs(artifacts)
    own = [run for run in runs if run.folder in folder.resolve().parents]
    return tuple(
        _too_good(seen, len(names), run, split)
        for run, split in product(own, SEEN_SPLITS)
        if (seen := [name for name in names if name in run.splits[split]])
    )


def _learned(split: str) -> tuple[str, ...]:
    """Return the splits of a run whose images are left out of an evaluation on `split`."""
    return ("train",) if split == "val" else ("train", "val")


def _listed(run: FinishedRun, samples: tuple[Sample, ...], split: str, notes: list[str]) -> tuple[Sample, ...]:
    """Return the samples that the run's splits.json lists in a split; add notes about other and missing images."""
    listed = run.splits[split]
    known = set().union(*(run.splits[name] for name in LABELLED))
    others = [sample.name for sample in samples if sample.name not in known]
    missing = sorted(set(listed) - {sample.name for sample in samples})
    if others:
        notes.append(f"left out: {_images(others)} not in {run.folder / SPLITS}: new, or excluded by the run")
    if missing:
        notes.append(f"missing: {_images(missing)} of {split} in {run.folder / SPLITS}")
    return tuple(sample for sample in samples if sample.name in listed)


def _unseen(
    samples: tuple[Sample, ...], runs: dict[FinishedRun, bool], learned: tuple[str, ...], notes: list[str]
) -> tuple[Sample, ...]:
    """Return the samples without those of the runs' splits `learned`; add a note for each split with its images.

    runs: whether each one is of this data set.
    """
    digests = digests_of(samples)
    is_kept = np.ones(len(samples), bool)
    for (run, is_own), split in product(runs.items(), SEEN_SPLITS):
        is_seen = run.has(split, samples, digests, is_own)
        names = [samples[index].name for index in np.flatnonzero(is_seen)]
        if names and split in learned:
            is_kept &= ~is_seen
            notes.append(f"left out: {_images(names)} of {_split_of(run, split)}; --all-images evaluates all")
        elif names:
            notes.append(_too_good(names, len(samples), run, split))
    return tuple(sample for sample, kept in zip(samples, is_kept, strict=True) if kept)


def _too_good(names: Sequence[str], total: int, run: FinishedRun, split: str) -> str:
    """Return a line about images that a run has seen and that are evaluated nevertheless."""
    use = "which it learned from" if split == "train" else "which chose, for example, the best epoch"
    return f"{_images(names)} of {total} are of {_split_of(run, split)}, {use}: the figures are too good"


def _split_of(run: FinishedRun, split: str) -> str:
    return f"the {split} split of {run.folder}"


def _images(names: Sequence[str]) -> str:
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({names[0]}{', …' if len(names) > 1 else ''})"


def _runs(artifacts: Sequence[Artifact]) -> tuple[list[FinishedRun], list[str]]:
    """Return the runs in whose folders the artifacts are, and notes on what can't be recognized."""
    runs: dict[Path, FinishedRun] = {}
    notes = []
    for artifact in artifacts:
        path = artifact.path.resolve()
        folder = path.parent.parent
        if path.parent.name == ARTIFACTS and finished_run.is_finished(folder):
            runs[folder] = runs.get(folder) or finished_run.read(folder)
        elif artifact.manifest.recipe is not None:
            notes.append(
                f"{artifact.path.name} is not in the folder of its run ('{artifact.manifest.recipe}'): images that it "
                "was trained on can't be recognized"
            )
    for run in runs.values():
        if not run.seen:
            notes.append(f"{run.folder} has no {SEEN}: its images can't be recognized in other folders; run it again")
    return list(runs.values()), notes
