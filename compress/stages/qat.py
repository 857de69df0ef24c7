"""Quantization-aware training: fine-tune with the rounding of INT8 where the exported file has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from compress.training.config import FitConfig, Teacher

if TYPE_CHECKING:
    from torch import nn

    from compress.training.context import Context

CALIBRATION_IMAGES = 256


class Config(FitConfig):
    """Cross-entropy on the train split with rounded weights and activations; see `FitConfig` for the rest.

    scheme: what to train for; auto is this machine's. teacher: the network before the stage, unless another is named.
    """

    stage: Literal["qat"] = "qat"
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 4
    lr: Annotated[float, Field(gt=0, le=100)] = 2e-4
    schedule: Literal["cosine", "onecycle"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    scheme: Literal["auto", "x86-avx2", "x86-vnni", "arm64", "tensorrt", "generic"] = "auto"
    teacher: Teacher | None = Teacher(network="before")


def run(model: nn.Module, context: Context, config: Config) -> nn.Module:
    """Return the network with trained weights; leaves the learned ranges in `quantization.json` for the export."""
    import tempfile
    from pathlib import Path

    import onnx
    import torch

    from compress.process import distributed
    from compress.quantization.calibration import calibrate
    from compress.quantization.config import LEARNED, CalibrationConfig
    from compress.quantization.qat.fake_quant import FakeQuantNetwork
    from compress.quantization.qat.fold import write_back
    from compress.quantization.schemes import scheme_named
    from compress.training.teaching import train
    from export.hard_activations import rewrite_hard_activations
    from export.plan import make_plan
    from export.to_onnx import to_onnx
    from runtimes.files import write_json

    scheme, side = scheme_named(config.scheme), context.preprocessing.crop
    model = model.eval().cpu()
    with tempfile.TemporaryDirectory() as folder:  # each process its own
        graph = onnx.load(to_onnx(model, Path(folder) / "before.onnx", side, opset=18, batch=None).path)
    if scheme.placement == "every-operator":
        graph = rewrite_hard_activations(graph)
    images = context.some("train", CALIBRATION_IMAGES)
    ranges = calibrate(graph, make_plan(graph, scheme).ranged, images, CalibrationConfig(), context.console)
    network = train(FakeQuantNetwork(graph, scheme, ranges), context, config, before=model)
    assert isinstance(network, FakeQuantNetwork)
    write_back(network.trained(), graph, model, torch.zeros(1, 3, side, side))
    if distributed.is_first():
        write_json(context.folder / LEARNED, {"scheme": scheme.name, "ranges": network.learned_ranges()})
    return model
