"""Draft a recipe for a surveyed folder of images, as commented YAML."""

from __future__ import annotations

import re
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from compress.data import imagefolder
from compress.init import limits, training
from compress.init.start import Start
from compress.init.survey import IMBALANCED, SPLITS, Survey
from compress.recipe.recipe import Recipe
from compress.verdict.metrics import Metric

Section = dict[str, Any]  # Any: values of a section of a recipe

UNREADABLE_BY_DEFAULT = 0.01  # share that a recipe allows
CALIBRATION_IMAGES = 256
LEAST_SPEEDUP = {"quantize": 1.0, "prune": 1.5}
DEFAULT_TEST_SHARE = imagefolder.Config.model_fields["test_share"].default
HARDLY_FASTER = ("mobilenet_v3",)  # in INT8 on a CPU
COMMENTS = textwrap.TextWrapper(118, break_long_words=False, break_on_hyphens=False)  # paths and names stay whole


@dataclass(frozen=True, eq=False)
class Draft:
    """A recipe with the reasons of its values. side: of the network's input, in pixels."""

    survey: Survey
    start: Start
    side: int
    stages: list[Section]
    gate: limits.Choice

    @property
    def prunes(self) -> bool:
        """Return whether the network is pruned."""
        return len(self.stages) > 1

    @property
    def name(self) -> str:
        """Return the name of the recipe and of its run folder, from the folder's name."""
        name = re.sub("[^A-Za-z0-9_.-]", "-", self.survey.root.name)[:64].strip("-_.")
        return name or "images"

    def sections(self) -> Section:
        """Return the content of the recipe."""
        usual = self.start.preprocessing
        if isinstance(usual.crop, int):  # else those of the run whose weights are used
            usual = replace(usual, resize=self.side, crop=self.side)
        unreadable = self.survey.unreadable / self.survey.total
        allowed = {"max_unreadable_images": round(unreadable + 0.005, 2)} if unreadable > UNREADABLE_BY_DEFAULT else {}
        config = self.survey.config
        share = {"test_share": config.test_share} if self.survey.test_share not in (None, DEFAULT_TEST_SHARE) else {}
        content = {
            "name": self.name,
            "data": {"name": "imagefolder", "root": str(config.root), "seed": config.seed, **share},
            **allowed,
            "preprocessing": {key: list(value) if isinstance(value, tuple) else value
                              for key, value in asdict(usual).items() if (key, value) != ("channels", "rgb")},
            "model": self.start.model,
            "stages": self.stages,
            "quantize": {"calibration_images": CALIBRATION_IMAGES},
            "targets": [{"name": "this-cpu", "runtime": "ort", "threads": 1}],
        }  # fmt: skip
        return content | ({"gate": self.gate.section} if self.gate.section else {})

    def recipe(self) -> Recipe:
        """Return the recipe."""
        return Recipe.model_validate(self.sections())

    def text(self, duration: str) -> str:
        """Return the recipe as commented YAML. duration: in words."""
        data = self.survey.data
        images = sum(len(data.split(split)) for split in SPLITS)
        comments = self._comments()
        lines = [
            f"# Recipe for {images} images of {len(data.classes)} classes; takes {duration} on the machine where "
            "`compress init` wrote it.",
            "# All keys with their defaults: compress explain",
        ]
        for key, section in self.sections().items():
            for comment in comments.get(key, ()):
                lines += [f"# {line}" for line in COMMENTS.wrap(comment)]
            lines += _yaml(key, section)
        return "\n".join(lines) + "\n"

    def _comments(self) -> dict[str, tuple[str, ...]]:
        """Return comments by the key that they stand above."""
        return {
            "data": (f"The seed decides which images of the training folder become {' and '.join(split_off)}.",)
            if (split_off := self.survey.split_off) else (),
            "max_unreadable_images": ("Share of images that may be unreadable; they are left out.",),
            "preprocessing": (
                f"The images' shorter sides have a median of {self.survey.typical_side} px; a larger crop is more "
                "accurate and slower.",
                "mean, std and interpolation belong to the starting weights.",
                *self._other_inputs(),
            ),
            "model": (f"Weights: {self.start.source}.", *([f"{self.start.advice}."] if self.start.advice else [])),
            "stages": (
                "augment: images are mirrored left to right. Set hflip: false if that changes the class (letters, left "
                "and right parts), vflip: true and transpose: true if images have no upright direction, crop_scale: "
                "[0.6, 1] for objects of varying size.",
                *(["freeze: BatchNorms keep the statistics of the starting weights; small batches give poor ones."]
                  if "freeze" in self.stages[0] else []),
                *(["balance_classes: rare classes count as much as frequent ones."]
                  if "balance_classes" in self.stages[0] else []),
                *(["latency: share of the INT8 latency to keep; distill trains the pruned network to imitate the "
                   "unpruned one."] if self.prunes else []),
            ),
            "quantize": ("INT8, calibrated on images of train.",),
            "targets": ("`compress list targets` prints others.",),
            "gate": ("Limits that decide the exit code: 0 pass, 3 regression, 4 inconclusive.", *self.gate.comments,
                     *(f"{line}." for line in self.gate.warnings)),
        }  # fmt: skip

    def _other_inputs(self) -> list[str]:
        """Return comments on inputs that suit the images better than square RGB images."""
        usual, lines = self.start.preprocessing, []
        if not isinstance(usual.crop, int) or usual.channels != "rgb":
            return []
        if (crop := self.survey.long_crop(self.side)) is not None:
            lines.append(f"The images are long, and only their centre square is used; crop: {list(crop)} uses more.")
        if self.survey.is_grey:
            mean, std = (round(sum(values) / len(values), 4) for values in (usual.mean, usual.std))
            lines.append("All images are grey. A network that takes one channel has a smaller first layer: replace "
                         f"mean and std by channels: 1, mean: {mean:g}, std: {std:g}.")  # fmt: skip
        return lines


def draft(survey: Survey, start: Start, device: str) -> Draft:
    """Decide everything that a recipe for the images needs. device: on which it is trained."""
    data = survey.data
    side = training.side(survey.typical_side, device, start.smallest_side)
    with_pruning = training.prunes(len(data.train), int(survey.counts[0].min()))
    imbalanced = survey.imbalance > IMBALANCED
    metric: Metric = "balanced_accuracy" if imbalanced else "top1"
    labels = survey.test_labels()
    if labels is not None and len(set(labels.tolist())) < len(data.classes):
        metric = "top1"  # the mean of the classes needs test images of each
    method = "prune" if with_pruning else "quantize"
    gate = limits.choose(labels, len(data.test), len(data.classes), metric, method, survey.test_share)
    if with_pruning or start.model["arch"] not in HARDLY_FASTER:
        gate = replace(gate, section={**gate.section, "min_speedup_p50": LEAST_SPEEDUP[method]})
    stages = training.stages(len(data.train), start.is_trained, with_pruning, imbalanced, start.batchnorms)
    return Draft(survey, start, side, stages, gate)


def _yaml(key: str, section: object) -> list[str]:
    """Return a section on one line, or with one line for each item of a list."""
    if isinstance(section, list):
        return [f"{key}:", *(f"  - {_flow(item)}" for item in section)]
    return [f"{key}: {_flow(section)}"]


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
