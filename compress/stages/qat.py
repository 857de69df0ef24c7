"""Quantization-aware training: fine-tune with the INT8 rounding of the exported file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compress.process import distributed
from compress.quantization.config import LEARNED, CalibrationConfig
from compress.quantization.schemes import SchemeName, scheme_named
from compress.training.config import FitConfig, Teacher
from runtimes.files import write_json

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context

CALIBRATION_IMAGES = 256
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # besides those that training needs
TRAINS_EXPORTED = True  # the exported network, whose branches are fused


class Config(FitConfig):
    """Cross-entropy on the train split with rounded weights and activations.

    scheme: INT8 scheme to train for; `auto` is this machine's.
    teacher: network to learn from, by default the one before this stage.
    freeze: names or patterns of convolutions and linear layers that are not trained, or of modules that hold some;
        BatchNorms are folded into them.
    lr_scale: factors of lr for convolutions and linear layers, or modules that hold some, by name or pattern.
    """

    TRAINS_MODULES: ClassVar[bool] = False  # but the layers of the exported graph

    stage: Literal["qat"] = "qat"
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 4
    lr: Annotated[float, Field(gt=0, le=100)] = 2e-4
    schedule: Literal["cosine", "onecycle"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    scheme: Literal["auto", SchemeName] = "auto"
    teacher: Teacher | None = Teacher(network="before")

    @model_validator(mode="after")
    def _without_features(self) -> Config:
        if self.teacher and self.teacher.loss == "features":
            raise ValueError("teacher.loss: qat trains the exported graph, which has no modules; use logits")
        return self

    def resolved(self) -> Config:
        """Return the settings with this machine's scheme in place of auto."""
        return self.model_copy(update={"scheme": scheme_named(self.scheme).name})


def run(network: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the network with trained weights; write the learned ranges to `quantization.json` for the export."""
    import onnx
    import torch

    # Imported here because they import torch or onnx, and reading a recipe imports every stage for its Config.
    from compress.quantization.calibration import calibrate
    from compress.quantization.qat.fake_quant import FakeQuantNetwork, require_same_outputs
    from compress.quantization.qat.fold import module_names, write_back
    from compress.training.teaching import train
    from export.layers import layers_of
    from export.plan import plan_quantization
    from export.rewrites.hard_activations import rewrite_hard_activations
    from export.to_onnx import to_onnx

    scheme, image = scheme_named(config.scheme), context.preprocessing.input_shape
    network = network.eval().cpu()
    with tempfile.TemporaryDirectory() as folder:  # of this process; several may run in the stage's folder
        graph = onnx.load(to_onnx(network, Path(folder) / "before.onnx", image, opset=18, batch=None).path)
    if scheme.placement == "every-operator":
        graph = rewrite_hard_activations(graph)
    images = context.subset("train", CALIBRATION_IMAGES)
    ranges = calibrate(graph, plan_quantization(graph, scheme).ranged, images, CalibrationConfig(), context.console)
    example = torch.zeros(1, *image)
    modules = module_names(graph, network, example)
    fixed = [name for name in layers_of(graph) if name not in modules]
    if fixed:
        context.console.say(f"qat: {len(fixed)} layers come from no module and are not trained: {', '.join(fixed)}")
    rounded = FakeQuantNetwork(graph, scheme, ranges, modules)
    require_same_outputs(rounded, network, example)
    trained = train(rounded, context, config, before=network)
    assert isinstance(trained, FakeQuantNetwork)
    write_back(trained.trained(), graph, network, example)
    if distributed.is_first():
        write_json(context.folder / LEARNED, {"scheme": scheme.name, "ranges": trained.learned_ranges()})
    return network
