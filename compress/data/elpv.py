"""ELPV: 2,624 electroluminescence images of solar cells, 300 x 300 grey, from the package elpv-dataset.

Deitsch et al., Automatic classification of defective photovoltaic module cells in electroluminescence images, Solar
Energy 185 (2019): 75/25 split stratified by probability and cell type; a cell is defective above a probability of 0.5.
Licence of the images: CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compress.images.samples import Data, Sample, stratified_split
from compress.recipe.section import Config as Section
from runtimes.errors import InputError, UnavailableError

CLASSES = ("functional", "defective")


class Config(Section):
    """ELPV solar cells: 2,624 images of the package elpv-dataset.

    val, test: share of all images in this split.
    seed: of the split; separate from the recipe's seed, so that runs with other seeds have the same test images.
    """

    name: Literal["elpv"] = "elpv"
    val: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.25
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


def load(config: Config) -> Data:
    """Return the images in the package; raises UnavailableError if it is not installed."""
    root = _root()
    samples = [_sample(root, line) for line in (root / "labels.csv").read_text().splitlines() if line.strip()]
    test, val, train = stratified_split(samples, (config.test, config.val), CLASSES, config.seed)
    return Data(CLASSES, train, val, test)


def _root() -> Path:
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        raise UnavailableError("data: elpv needs the package elpv-dataset: pip install elpv-dataset")
    return Path(package.submodule_search_locations[0]) / "data"


def _sample(root: Path, line: str) -> tuple[Sample, tuple[str, str]]:
    try:
        name, probability, cell_type = line.split()
        return Sample(name, root / name, int(float(probability) > 0.5)), (probability, cell_type)
    except ValueError as error:
        raise InputError(f"{root / 'labels.csv'}: must hold 'path probability type' per line, not {line!r}") from error
