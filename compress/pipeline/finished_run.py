"""Read from a run's folder which images it learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from compress.images.copies import DIGEST, Digests, digests_of
from compress.images.exclusion import SEEN as SEEN_SPLITS
from compress.images.samples import Data, Rejected, Sample
from compress.networks.sources import weights_file
from compress.pipeline import initial
from compress.pipeline.run_folder import RECIPE, SEEN, SPLITS
from compress.recipe import named_data, plugins, strict_yaml
from compress.recipe.recipe import Recipe
from compress.recipe.section import Config
from runtimes.errors import InputError
from runtimes.files import read_json

LABELLED = ("train", "val", "test")
CURE = "run the recipe again, or copy the file that you use out of the run folder"


@dataclass(frozen=True, eq=False)
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

    def has(self, split: str, samples: Sequence[Sample], digests: Digests, is_own: bool) -> npt.NDArray[np.bool_]:
        """Return which samples are in train or val: by their bytes, or by their names in a run without digests.

        is_own: whether the samples are of the run's data set; names say nothing of another one.
        """
        if self.seen:
            return np.isin(digests, self.seen[split])
        names = self.splits[split] if is_own else {}
        return np.asarray([sample.name in names for sample in samples], bool)


def is_finished(folder: Path) -> bool:
    """Return whether a folder is that of a run that reached its end."""
    return (folder / SPLITS).is_file() and (folder / RECIPE).is_file()


def read(folder: Path) -> FinishedRun:
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
    except (InputError, OSError, ValueError, KeyError, TypeError, ImportError, EOFError, BadZipFile) as error:
        raise InputError(f"{folder}: its {RECIPE}, {SPLITS} or {SEEN} can't be read ({error}); {CURE}") from error


def trained_on(recipe: Recipe, data: Data) -> tuple[Rejected, ...]:
    """Return the test images that networks of other runs learned from whose weights the recipe uses.

    They are those of `model` and of teachers. Files of weights outside of run folders are unknown.
    """
    sections = [recipe.model, *initial.own_teachers(recipe.stages)]
    files = [weights_file(section.weights) for section in sections if section.weights]
    folders = {folder for file in files if file for folder in file.resolve().parents if is_finished(folder)}
    digests = digests_of(data.test if folders else ())
    rejected: dict[str, Rejected] = {}
    for run in map(read, sorted(folders)):
        is_seen = run.has("train", data.test, digests, run.owns(recipe.data, "test"))
        for index in np.flatnonzero(is_seen):
            name = data.test[index].name
            reason = f"the network in {run.folder}, whose weights are used, was trained on it"
            rejected.setdefault(name, Rejected(name, "test", reason))
    return tuple(rejected.values())


def _same(one: str | Path, other: str | Path) -> bool:
    """Return whether two roots are the same folder, or the same address."""
    return str(one) == str(other) or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))
