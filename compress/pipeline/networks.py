"""The networks of a run: the starting network, then one checkpoint for each stage.

torch takes seconds to import. Functions that need it import it themselves, so that the command line stays fast and a
run whose steps are all cached starts at once.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.networks import WEIGHTS_FILE
from compress.pipeline import initial
from compress.pipeline.identity import file_sha256, identity
from compress.pipeline.images import RunImages, SplitImages
from compress.pipeline.steps import TRAINING_PACKAGES, Step, Steps, step_options
from compress.process import distributed
from compress.pruning.config import PruneConfig
from compress.quantization.config import LEARNED
from compress.recipe import plugins
from compress.recipe.recipe import Recipe
from compress.training.context import Context
from runtimes.environment import package_versions
from runtimes.errors import InputError, UnavailableError
from runtimes.files import Json, JsonValue, read_json, write_json
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

if TYPE_CHECKING:
    from torch import nn

StageConfig: TypeAlias = Any  # the Config of a stage's plug-in
ModelConfig: TypeAlias = Any  # the Config of a model's plug-in

PREDICTIONS = "predicted.json"
INITIAL = "initial.json"  # notes of the weights, modules that stayed random, whether branches are to be fused
FUSION = "fusion.json"
CHECK_NETWORK = "check-network"


@dataclass(frozen=True)
class Checkpoint:
    """A network on disk.

    name: of the step that made it. channels: of its images. stages: those that it has been through, oldest first.
    """

    name: str
    folder: Path
    model: ModelConfig
    classes: int
    channels: int
    stages: tuple[StageConfig, ...] = ()

    def identity(self) -> JsonValue:
        """Return the architecture, the stages and the sha256 of the weights."""
        weights = file_sha256(self.folder / WEIGHTS_FILE)
        return {"sections": identity([self.model, *self.stages]), "weights": weights}

    def load(self) -> nn.Module:
        """Rebuild the network with its weights, in eval mode."""
        from compress.networks import checkpoint  # imports torch

        return checkpoint.load(self.folder, self.model, self.classes, self.channels)

    def learned_ranges(self) -> Json | None:
        """Return the scheme and the activation ranges that the last stage learned; None where it learned none."""
        path = self.folder / LEARNED
        return read_json(path) if path.exists() else None


@dataclass(frozen=True)
class StageSetup:
    """Everything besides networks and images that a stage's result depends on.

    target: the one that the stage measures on, None if it measures nothing. packages: versions that the stage needs
    besides those of training. teachers: the networks of its sections `teacher`, if they are sections like `model`.
    """

    config: StageConfig
    seed: int
    device: str
    target: Target | None
    packages: dict[str, str]
    teachers: tuple[Checkpoint, ...]


@dataclass(frozen=True)
class Networks:
    """All networks of a run, oldest first.

    unpruned: the network before the first stage that prunes, as it is exported; None without. starts_trained: whether
    all weights of the first network were loaded. notes: what was chosen, left out or replaced then.
    """

    checkpoints: tuple[Checkpoint, ...]
    unpruned: Checkpoint | None
    starts_trained: bool
    notes: tuple[str, ...]

    @property
    def final(self) -> Checkpoint:
        """The network that is exported."""
        return self.checkpoints[-1]

    @property
    def evaluated(self) -> tuple[Checkpoint, ...]:
        """The networks whose accuracy is reported: after each stage, and the first one if nothing is random in it."""
        start, *stages = self.checkpoints
        return (start, *stages) if stages and self.starts_trained else tuple(stages)


def train_networks(recipe: Recipe, steps: Steps, images: RunImages) -> Networks:
    """Create the network and run all stages in order; every process of torchrun takes part.

    Raises InputError before the first stage if weights do not fit, or if their classifier would stay random.
    """
    start, notes = _create(steps, "network", recipe.model, images, recipe.seed)
    random = read_json(start.folder / INITIAL)["random"]
    teachers = []
    for number, section in enumerate(initial.own_teachers(recipe.stages)):
        teacher, teacher_notes = _create(steps, f"teacher-{number}", section, images, recipe.seed)
        initial.require_trained_teacher(section, read_json(teacher.folder / INITIAL)["random"])
        teachers.append(teacher)
        notes += [f"teacher: {note}" for note in teacher_notes]
    notes += [*initial.untrained_notes(recipe, random), *initial.code_notes(recipe)]
    for note in notes:
        steps.console.say(note)
    fusible = bool(read_json(start.folder / INITIAL)["fusible"])
    prunes = tuple(stage for stage in recipe.stages if isinstance(stage, PruneConfig))[:1]
    if fusible or prunes:
        steps.run(check_network, CHECK_NETWORK, network=start, prunes=prunes, preprocessing=images.preprocessing)
    checkpoints, unpruned = _run_stages(recipe, steps, images, start, tuple(teachers), fusible)
    names = [checkpoint.name for checkpoint in checkpoints]
    if "fuse" in names:
        notes.append(read_json(checkpoints[names.index("fuse")].folder / FUSION)["note"])
        if unpruned is not None and unpruned.name not in names[names.index("fuse") :]:
            unpruned = _fused(steps, "fuse-baseline", unpruned, images.preprocessing)
    return Networks(tuple(checkpoints), unpruned, not random, tuple(notes))


def _run_stages(
    recipe: Recipe, steps: Steps, images: RunImages, start: Checkpoint, teachers: tuple[Checkpoint, ...], fusible: bool
) -> tuple[list[Checkpoint], Checkpoint | None]:
    """Return the networks, and the one before the first stage that prunes.

    fusible: whether branches are fused, before the first stage that trains the exported network, or at the end.
    """
    checkpoints = [start]
    unpruned: Checkpoint | None = None
    for index, config in enumerate(recipe.stages):
        plugin = plugins.load("stages", config.stage)
        if fusible and getattr(plugin, "TRAINS_EXPORTED", False):
            checkpoints.append(_fused(steps, "fuse", checkpoints[-1], images.preprocessing))
            fusible = False
        previous = checkpoints[-1]
        if getattr(plugin, "PRUNES", False):
            unpruned = unpruned or previous
        own = initial.own_teachers([config])
        setup = StageSetup(
            config.resolved(), recipe.seed, resolve_device(recipe.device), config.measures_on(recipe.targets),
            package_versions(getattr(plugin, "PACKAGES", ())),
            tuple(teacher for teacher in teachers if teacher.model in own),
        )  # fmt: skip
        name = f"{index}-{config.stage}"
        folder = steps.run(
            run_stage, name, setup=setup, previous=previous, baseline=unpruned or previous, train=images.of("train"),
            val=images.of("val"),
        )  # fmt: skip
        checkpoints.append(replace(previous, name=name, folder=folder, stages=(*previous.stages, config)))
    if fusible:
        checkpoints.append(_fused(steps, "fuse", checkpoints[-1], images.preprocessing))
    return checkpoints, unpruned


def _create(steps: Steps, name: str, model: ModelConfig, images: RunImages, seed: int) -> tuple[Checkpoint, list[str]]:
    """Return an initialised network and the notes of its weights, which a cached step gives again."""
    classes, channels = len(images.data.classes), images.preprocessing.channel_count
    folder = steps.run(create_network, name, model=model, classes=classes, channels=channels, seed=seed)
    notes: list[str] = read_json(folder / INITIAL)["notes"]
    return Checkpoint(name, folder, model, classes, channels), notes


@step_options(TRAINING_PACKAGES)
def create_network(
    step: Step, model: ModelConfig, classes: int, channels: int, seed: int
) -> None:  # Any: a plug-in's Config
    """Write an initial network: random from the seed, or with the weights that its section names."""
    from compress.networks import checkpoint, fusion, weights  # import torch

    network, loaded = weights.initialise(model, classes, seed, channels)
    fusible = fusion.is_fusible(network)
    checkpoint.save(step.folder, network, loaded.pruned, loaded.fused)
    write_json(step.folder / INITIAL, {"notes": loaded.notes, "random": loaded.random, "fusible": fusible})


@step_options((*TRAINING_PACKAGES, "onnx", "onnxscript", "scipy"))
def check_network(
    step: Step, network: Checkpoint, prunes: tuple[PruneConfig, ...], preprocessing: Preprocessing
) -> None:
    """Raise InputError for a network that can't be fused exactly, or not pruned by the first stage that prunes."""
    import torch

    from compress.networks import fusion  # imports torch
    from compress.pruning.planning import require_prunable  # imports torch

    example, initial_network = torch.zeros(1, *preprocessing.input_shape), network.load()
    if fusion.is_fusible(initial_network):
        fusion.fused_checked(initial_network, example)
    for config in prunes:
        require_prunable(initial_network, example, config)


def _fused(steps: Steps, name: str, network: Checkpoint, preprocessing: Preprocessing) -> Checkpoint:
    folder = steps.run(fuse, name, network=network, preprocessing=preprocessing)
    return replace(network, name=name, folder=folder)


@step_options(TRAINING_PACKAGES)
def fuse(step: Step, network: Checkpoint, preprocessing: Preprocessing) -> None:
    """Write the network with its branches fused, as it is exported."""
    import torch

    from compress.networks import checkpoint, fusion  # imports torch

    example = torch.zeros(1, *preprocessing.input_shape)
    fused, summary = fusion.fused_checked(network.load(), example)
    step.console.say(summary.line())
    checkpoint.save(step.folder, fused, checkpoint.is_pruned(network.folder), fused=True)
    write_json(step.folder / FUSION, {"note": summary.line(), **asdict(summary)})


@step_options(TRAINING_PACKAGES, collective=True)
def run_stage(
    step: Step, setup: StageSetup, previous: Checkpoint, baseline: Checkpoint, train: SplitImages, val: SplitImages
) -> None:
    """Run one stage on the previous network and write the resulting one."""
    from compress.networks import checkpoint  # imports torch

    splits, data = {"train": train, "val": val}, train.source.data

    def teacher(network: ModelConfig) -> nn.Module:
        if network == "baseline":
            return baseline.load()
        return next(own for own in setup.teachers if own.model == network).load()

    context = Context(
        name=step.name,
        classes=data.classes,
        train=data.train,
        preprocessing=train.preprocessing,
        seed=setup.seed,
        device=setup.device,
        folder=step.folder,
        target=setup.target,
        teacher=teacher,
        prepared=lambda split: splits[split].load(),
        subset=lambda split, count: splits[split].at_most(count).load(),
        track=step.track,
        console=step.console,
    )
    plugin = plugins.load("stages", setup.config.stage)
    network = plugin.run(previous.load(), context, setup.config)
    _require_network(network, setup.config.stage)
    if distributed.is_first():
        pruned = getattr(plugin, "PRUNES", False) or checkpoint.is_pruned(previous.folder)
        checkpoint.save(step.folder, network, pruned, checkpoint.is_fused(previous.folder))


def _require_network(network: object, stage: str) -> None:
    """Raise InputError for the result of a stage that is no network: a plug-in may return anything."""
    from torch import nn

    if not isinstance(network, nn.Module):
        raise InputError(f"stage: {stage}: returned a {type(network).__name__}; it must return a torch.nn.Module")


def predictions_on(steps: Steps, network: Checkpoint, images: SplitImages, device: str) -> list[int]:
    """Return the PyTorch predictions on images; for the test set at the very end of a run, so no decision uses it."""
    folder = steps.run(
        predict_classes, f"predictions-{network.name}", network=network, images=images, device=resolve_device(device)
    )
    predictions: list[int] = read_json(folder / PREDICTIONS)
    return predictions


@step_options(TRAINING_PACKAGES)
def predict_classes(step: Step, network: Checkpoint, images: SplitImages, device: str) -> None:
    """Write the predicted class of each image."""
    from compress.training.loop import predict  # imports torch

    logits = predict(network.load().to(device), images.load(), device)
    write_json(step.folder / PREDICTIONS, logits.argmax(1).tolist())


def resolve_device(device: str) -> str:
    """Return cpu or cuda for a recipe's `device`; raises UnavailableError for cuda without a GPU."""
    if device == "cpu" or (device == "auto" and not _has_cuda_driver()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True  # try which convolution algorithm is fastest, once per shape
        return "cuda"
    if device == "cuda":
        raise UnavailableError("device: cuda, but torch finds no GPU on this machine; set device: cpu or auto")
    return "cpu"


def _has_cuda_driver() -> bool:
    """Return whether NVIDIA's driver is installed; without it there is no need to import torch."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
