"""The settings of the training loop, shared by every stage that trains; loads without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from compress.recipe import plugins
from compress.recipe.section import Config

if TYPE_CHECKING:
    ModelConfig: TypeAlias = Any
else:
    ModelConfig = plugins.config_union("models")


class Augment(Config):
    """Random changes of training images. crop_scale: least and greatest share of the area that a random crop keeps.

    transpose: rows become columns in half of the images, for pictures that have no upright. rotate, shear: by at most
    so many degrees to either side. shift: by at most that share of the side. zoom: least and greatest factor.
    policy: `randaugment` (two of 14 changes, of strength `magnitude`, 0 to 30) or `trivialaugment` (one of any
    strength). erase: the share of images in which a rectangle is painted over. mixup, cutmix: alpha of the beta
    distribution that says how much of another image of the batch is mixed in; 0 for none.
    """

    hflip: bool = True
    vflip: bool = False
    transpose: bool = False
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] = 0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0
    zoom: tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] | None = None
    policy: Literal["randaugment", "trivialaugment"] | None = None
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    erase: Annotated[float, Field(ge=0, le=1)] = 0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        for name, pair in (("crop_scale", self.crop_scale), ("zoom", self.zoom)):
            if pair and pair[0] > pair[1]:
                raise ValueError(f"{name}: must be [least, greatest], not {list(pair)}")
        return self

    @property
    def only_turns(self) -> bool:
        """Whether it shows an image in the few variants alone that flips and the transpose make."""
        others = self.crop_scale or self.rotate or self.shift or self.shear or self.zoom or self.policy or self.erase
        return not (others or self.mixup or self.cutmix)


class Teacher(Config):
    """A network whose answers are learned beside the labels, and how.

    network: `baseline`, the recipe's own before its first stage `prune`; `before`, as it was before this stage; or a
    section like `model`, with weights. loss: `logits`,
    `decoupled` (in which the classes that are not the label's weigh `beta` by themselves) or `features` (the logits,
    and outputs of modules). share: of the loss. layers: for `features`: modules of the student by name, each with the
    teacher's that it should be like; a learned 1x1 convolution is between them.
    """

    network: Literal["baseline", "before"] | ModelConfig = "baseline"
    loss: Literal["logits", "decoupled", "features"] = "logits"
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    beta: Annotated[float, Field(ge=0, le=100)] = 2.0
    layers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _layers_fit(self) -> Teacher:
        if (self.loss == "features") != bool(self.layers):
            raise ValueError("layers: are for loss: features, which needs at least one")
        if not isinstance(self.network, str) and self.network.weights is None:
            raise ValueError("network: a teacher needs weights")
        return self


class FitConfig(Config):
    """One training run.

    lr: the highest learning rate. momentum: of sgd and rmsprop. weight_decay: spares norms and biases.
    warmup_epochs: of linear (cosine) or cosine (onecycle) rise. ema_decay: per step, null for none; else the result is
    the averaged network. precision: of the arithmetic; auto is bfloat16 where the device multiplies it fast (CUDA),
    else float32. accumulate: parts that a batch is learned in, one after the other, to need less memory; BatchNorm
    sees the parts. clip_norm: the
    greatest length of the gradient. checkpoint_minutes: between two states written inside an epoch.
    workers: processes that decode images, used with crop_scale; without it the images are decoded once, beforehand.
    repeats: copies of an image, differently augmented, that an epoch shows next to each other; it shows the fewer
    images. resize_from: side in pixels of the first epoch's images, which grows evenly to the preprocessing's in the
    first three quarters of the epochs. freeze: names or patterns of modules that stay as they are; lr_scale: factors
    of lr for modules by name or pattern. sync_batchnorm: means and variances over all processes of torchrun.
    teacher: a network to learn from; null for labels alone.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = 3e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    schedule: Literal["cosine", "onecycle"] = "onecycle"
    warmup_epochs: Annotated[float, Field(ge=0)] = 3
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10
    augment: Augment = Augment()
    repeats: Annotated[int, Field(ge=1, le=64)] = 1
    resize_from: Annotated[int, Field(ge=16, le=4096)] | None = None
    freeze: tuple[str, ...] = ()
    lr_scale: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    sync_batchnorm: bool = False
    teacher: Teacher | None = None
    workers: Annotated[int, Field(ge=0, le=256)] = 2

    @model_validator(mode="after")
    def _fits_itself(self) -> FitConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: must be less than epochs: {self.epochs}, not {self.warmup_epochs:g}")
        if 2 * self.accumulate > self.batch_size:
            raise ValueError(f"accumulate: must leave two images in each part of batch_size: {self.batch_size}, not "
                             f"{self.accumulate} parts")  # fmt: skip
        if self.teacher and self.teacher.loss == "decoupled" and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("teacher.loss: decoupled takes the label's class apart, which mixed images have no one of")
        return self

    def side(self, epoch: int, whole: int) -> int:
        """Return the side in pixels of an epoch's images, a multiple of 16 until it is `whole`."""
        if self.resize_from is None or self.resize_from >= whole:
            return whole
        done = min(1.0, epoch / max(1.0, 0.75 * self.epochs))
        side = self.resize_from + done * (whole - self.resize_from)
        return whole if done == 1 else max(16, round(side / 16) * 16)
