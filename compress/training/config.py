"""Settings of the training loop, shared by every stage that trains. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from compress.recipe import plugins
from compress.recipe.section import Config
from runtimes.errors import InputError
from runtimes.files import JsonValue
from runtimes.preprocessing import Preprocessing, Sides

if TYPE_CHECKING:
    ModelConfig: TypeAlias = Any  # the Config of whichever plug-in of compress/models
else:
    ModelConfig = plugins.config_union("models")


class Augment(Config):
    """Random augmentation of training images.

    hflip, vflip: mirror half of the images.
    transpose: swap rows and columns of half of the images, for images without an upright direction; needs a square
        crop.
    crop_scale: [least, greatest] share of the area that a random crop keeps; if the crop of `preprocessing` is no
        square, of the area of the image's largest part in the crop's proportions.
    rotate, shear: greatest angle in degrees, to either side.
    shift: greatest shift, as a share of the side.
    zoom: [least, greatest] factor.
    policy: `randaugment` (two of 14 transforms, of strength `magnitude`) or `trivialaugment` (one transform of random
    strength); for 1 or 3 channels.
    magnitude: strength of `randaugment`.
    erase: share of images in which a rectangle is erased.
    mixup, cutmix: alpha of the beta distribution from which the mixed share of another image is drawn; 0 for none.
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

    def require_fit(self, preprocessing: Preprocessing) -> None:
        """Raise InputError if images of that preprocessing can't be augmented so."""
        if self.transpose and preprocessing.height != preprocessing.width:
            raise InputError(
                f"transpose: swaps rows and columns, so it needs a square crop, not {preprocessing.crop_text}; remove "
                "transpose, or use hflip and vflip"
            )
        if self.policy and preprocessing.channels == "rgba":
            raise InputError(f"policy: {self.policy}: is for 1 or 3 channels, not rgba; remove policy")

    @property
    def only_flips(self) -> bool:
        """Return whether images are only flipped and transposed, which gives at most eight variants of each."""
        others = self.crop_scale or self.rotate or self.shift or self.shear or self.zoom or self.policy or self.erase
        return not (others or self.mixup or self.cutmix)

    @property
    def flip_variants(self) -> int:
        """Return the number of different images that flips and transposition make of one."""
        return int(2 ** (self.hflip + self.vflip + self.transpose))


class Teacher(Config):
    """Knowledge distillation: a network whose outputs are learned along with the labels.

    network: `baseline`, the recipe's network before its first stage `prune`; `before`, the network before this stage;
    or a section like `model`, with weights.
    loss: `logits` (Hinton et al., 2015), `decoupled` (Zhao et al., CVPR 2022) or `features` (logits and outputs of
    modules).
    share: weight of the teacher's loss; the rest is the labels'.
    beta: weight of the non-target classes in `decoupled`.
    temperature: by which logits are divided before the softmax.
    layers: for `features`: names of the student's modules, each with the name of the teacher's module that it learns
    from through a trained 1x1 convolution.
    """

    network: Literal["baseline", "before"] | ModelConfig = "baseline"
    loss: Literal["logits", "decoupled", "features"] = "logits"
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    beta: Annotated[float, Field(ge=0, le=100)] = 2.0
    layers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Teacher:
        if (self.loss == "features") != bool(self.layers):
            raise ValueError("layers: required for loss: features, and not allowed for other losses")
        if not isinstance(self.network, str) and self.network.weights is None:
            raise ValueError("network: a teacher needs weights; add weights to its section")
        return self


class FitConfig(Config):
    """Settings of one training run.

    epochs: number of passes over the training images.
    batch_size: number of images in a step, over all processes.
    optimizer: method that updates the weights.
    lr: highest learning rate.
    momentum: of `sgd` and `rmsprop`.
    weight_decay: not applied to norms and biases.
    schedule: shape of the learning rate over time.
    warmup_epochs: of linear (`cosine`) or cosine-shaped (`onecycle`) rise of the learning rate. Not given with
    at most 3 epochs, a third of the epochs.
    ema_decay: of the moving average of the weights, per step; the averaged network is the result. null for none.
    label_smoothing: share of each label that is spread over all classes.
    precision: of the arithmetic; `auto` is bfloat16 on a GPU and float32 on a CPU.
    balance_classes: give all classes the same weight, whatever their number of images, by logit adjustment; also in the
        distance to a teacher's logits.
    accumulate: number of parts into which a batch is split to save memory; BatchNorm sees the parts. Each has at least
    two images: a small batch is split into fewer parts.
    clip_norm: greatest norm of the gradient.
    checkpoint_minutes: time between two checkpoints inside an epoch.
    augment: random changes of the training images.
    repeats: number of differently augmented copies of an image that follow each other; an epoch shows fewer images.
    resize_from: shorter side in pixels of the first epoch's images; they grow linearly to the preprocessing's crop
    during the first three quarters of the epochs.
    freeze: names or patterns of modules that are not trained; a later stage without it trains them.
    lr_scale: factors of lr for modules, by name or pattern.
    sync_batchnorm: compute BatchNorm statistics over all processes of torchrun.
    teacher: network to learn from; null to learn from labels only.
    workers: number of processes that decode and augment images, used with crop_scale or an expensive augmentation.
    """

    TRAINS_MODULES: ClassVar[bool] = True  # whether freeze and lr_scale may name any module, not only layers

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
    balance_classes: bool = False
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

    @model_validator(mode="before")
    @classmethod
    def _shorten_warmup(cls, content: JsonValue) -> JsonValue:
        """Shorten a warm-up that is not given, so that few epochs alone are valid."""
        if not isinstance(content, dict) or "warmup_epochs" in content:
            return content
        epochs, warmup = content.get("epochs"), cls.model_fields["warmup_epochs"].default
        if not isinstance(epochs, int) or not 1 <= epochs <= warmup:
            return content
        return {**content, "warmup_epochs": round(epochs / 3, 2)}

    @model_validator(mode="after")
    def _consistent(self) -> FitConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs: must be less than epochs: {self.epochs}, not {self.warmup_epochs:g}; set both, or "
                "remove warmup_epochs"
            )
        if 2 * self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate: {self.accumulate} parts are too many for batch_size: {self.batch_size}; each part needs "
                "at least two images"
            )
        if self.teacher and self.teacher.loss == "decoupled" and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("teacher.loss: decoupled needs one label per image; turn off augment.mixup and cutmix")
        return self

    @property
    def tabulates_teacher(self) -> bool:
        """Return whether the teacher's outputs are computed once for all variants of the images, not in every epoch."""
        return self.augment.only_flips and self.resize_from is None and self.augment.flip_variants <= self.epochs

    def sides(self, epoch: int, full: Sides) -> Sides:
        """Return height and width in pixels of an epoch's images, multiples of 16 until they are `full`."""
        shorter = min(full)
        if self.resize_from is None or self.resize_from >= shorter:
            return full
        progress = min(1.0, epoch / max(1.0, 0.75 * self.epochs))
        if progress == 1:
            return full
        side = self.resize_from + progress * (shorter - self.resize_from)
        return _multiple_of_16(side * (full[0] / shorter)), _multiple_of_16(side * (full[1] / shorter))


def _multiple_of_16(side: float) -> int:
    return max(16, round(side / 16) * 16)
