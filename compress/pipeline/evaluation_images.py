"""Choose the images on which artifacts are evaluated, without those that their runs learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from compress.images.copies import DIGEST, Digests, digests_of
from compress.images.exclusion import SEEN as SEEN_SPLITS
from compress.images.samples import Sample
from compress.pipeline.run_folder import RECIPE, SEEN, SPLITS
from compress.recipe import named_data, plugins, strict_yaml
from compress.recipe.section import Config
from compress.report.report import ARTIFACTS
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.files import read_json

LABELLED = ("train", "val", "test")
CURE = "run the recipe again, or copy the artifact out of the run folder"


@dataclass(frozen=True)
class Choice:
    """Images to evaluate. notes: what was left out and why, and which images a run has seen, one line each."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run, with its section `data`, its splits, and the digests of its images of train and val."""

    folder: Path
    config: Config
    splits: Mapping[str, Mapping[str, int | None]]
    seen: Mapping[str, Digests]

    def owns(self, config: Config, split: str) -> bool:
        """Return whether this is the data set of the run: its root, or the folder of the split."""
        if named_data.name_of(config) != named_data.name_of(self.config):
            return False
        root, own_root = (getattr(section, "root", None) for section in (config, self.config))
        if root is None:
            return own_root is None
        folders = [own_root, own_root and f"{own_root}/{split}", getattr(self.config, split, None)]
        return any(_same(root, folder) for folder in folders if isinstance(folder, (str, Path)))


def choose(named: str, split: str, artifacts: Sequence[Artifact], all_images: bool) -> Choice:
    """Return the images of a split of `NAME[:ROOT]`, without those that the artifacts' runs learned from.

    For the data set of a run, they are those that its splits.json lists. Everywhere, images with the bytes of an image
    of a run's train or val split are left out; for `split` val, of train only. all_images: of all splits, and nothing
    is left out. Raises InputError if nothing remains.
    """
    runs, notes = _runs(artifacts)
    config = named_data.config_of(named)
    own = next((run for run in runs if run.owns(config, split)), None)
    data = named_data.load_config(own.config if own else config)
    notes = [*data.notes(), *notes]
    everything = tuple(sample for name in LABELLED for sample in data.split(name))
    samples = everything if all_images else data.split(split)
    if own and not all_images:
        samples = _listed(own, everything, split, notes)
    if not samples:
        raise InputError(f"--data {named}: its split '{split}' has no images")
    if runs:
        samples = _unseen(samples, runs, () if all_images else _learned(split), notes)
    if not samples:
        raise InputError(f"--data {named}: {notes[-1]}; no image remains")
    return Choice(data.classes, samples, tuple(notes))


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
    samples: tuple[Sample, ...], runs: list[FinishedRun], learned: tuple[str, ...], notes: list[str]
) -> tuple[Sample, ...]:
    """Return the samples without those of the runs' splits `learned`; add a note for each split with its images."""
    digests = digests_of(samples)
    is_kept = np.ones(len(samples), bool)
    folders = ", ".join(str(run.folder) for run in runs)
    for split in SEEN_SPLITS:
        is_seen = np.isin(digests, np.concatenate([run.seen[split] for run in runs if run.seen] or [digests[:0]]))
        names = [samples[index].name for index in np.flatnonzero(is_seen)]
        if not names:
            continue
        if split in learned:
            is_kept &= ~is_seen
            notes.append(f"left out: {_images(names)} of the {split} split of {folders}; --all-images evaluates all")
        else:
            use = "learned from" if split == "train" else "chose by, for example the best epoch"
            notes.append(f"{_images(names)} of {len(samples)} are of the {split} split of {folders}, which the run "
                         f"{use}: the figures are too good")  # fmt: skip
    return tuple(sample for sample, kept in zip(samples, is_kept, strict=True) if kept)


def _images(names: Sequence[str]) -> str:
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({names[0]}{', …' if len(names) > 1 else ''})"


def _runs(artifacts: Sequence[Artifact]) -> tuple[list[FinishedRun], list[str]]:
    """Return the runs in whose folders the artifacts are, and notes on what can't be recognized."""
    runs: dict[Path, FinishedRun] = {}
    notes = []
    for artifact in artifacts:
        path = artifact.path.resolve()
        folder = path.parent.parent
        if path.parent.name == ARTIFACTS and (folder / SPLITS).is_file() and (folder / RECIPE).is_file():
            runs[folder] = runs.get(folder) or _finished(folder)
        elif artifact.manifest.recipe is not None:
            notes.append(
                f"{artifact.path.name} is not in the folder of its run ('{artifact.manifest.recipe}'): images that it "
                "was trained on can't be recognized"
            )
    for run in runs.values():
        if not run.seen:
            notes.append(f"{run.folder} has no {SEEN}: its images can't be recognized in other folders; run it again")
    return list(runs.values()), notes


def _finished(folder: Path) -> FinishedRun:
    """Read a run's folder; raises InputError if its files are damaged."""
    seen: dict[str, Digests] = {}
    try:
        section = strict_yaml.read(folder / RECIPE)["data"]
        config = plugins.load("data", section["name"]).Config.model_validate(section)
        if (folder / SEEN).exists():  # runs before version 0.3 have none
            with (folder / SEEN).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                seen = {split: arrays[split].astype(DIGEST) for split in SEEN_SPLITS}
        splits = read_json(folder / SPLITS)
        return FinishedRun(folder, config, {split: dict(splits[split]) for split in LABELLED}, seen)
    except (OSError, ValueError, KeyError, TypeError, ImportError, BadZipFile) as error:
        raise InputError(f"{folder}: its {RECIPE}, {SPLITS} or {SEEN} can't be read ({error}); {CURE}") from error


def _same(one: str | Path, other: str | Path) -> bool:
    """Return whether two roots are the same folder, or the same address."""
    return str(one) == str(other) or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))
