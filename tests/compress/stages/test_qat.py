"""The stage qat: the exported network equals the trained one and is more accurate than without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compress.quantization.calibration import calibrate
from compress.quantization.config import LEARNED, CalibrationConfig
from compress.quantization.ort_graph import logits
from compress.quantization.schemes import SCHEMES
from compress.stages.qat import Config, run
from compress.stages.train import Config as TrainConfig
from compress.stages.train import run as train
from compress.training.context import Context
from export.plan import plan_quantization
from export.quantize import insert_qdq
from export.to_onnx import to_onnx
from runtimes.errors import InputError

MakeContext = Callable[..., Context]
SCHEME = SCHEMES["x86-vnni"]


class Small(nn.Module):
    """Two convolutions; the second reads a tensor whose first channel is far larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 5, stride=2, bias=False), nn.BatchNorm2d(16)
        self.second, self.head = nn.Conv2d(16, 16, 3, stride=2), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.second(self.norm(self.first(images)).relu()).relu().mean((2, 3)))


@torch.no_grad()
def spoil(network: Small) -> None:
    """Scale one channel by 1000, so that the others use a thousandth of the INT8 range; float outputs are unchanged."""
    network.norm.weight[0] *= 1000
    network.norm.bias[0] *= 1000
    network.second.weight[:, 0] /= 1000


def accuracy(model: onnx.ModelProto, context: Context) -> float:
    images = context.prepared("val")
    assert images.labels is not None
    return float(np.mean(logits(model, images).argmax(1) == images.labels))


def export(network: nn.Module, path: Path) -> onnx.ModelProto:
    return onnx.load(to_onnx(network, path, 32, 18, None).path)


@pytest.mark.usefixtures("one_thread")
def test_qat_restores_the_accuracy_and_the_export_equals_the_trained_network(
    make_context: MakeContext, tmp_path: Path
) -> None:
    context = make_context("1-qat")
    torch.manual_seed(0)
    network = Small()
    train(network, make_context(), TrainConfig(epochs=12, batch_size=8, lr=0.01, warmup_epochs=1))
    spoil(network)
    before = export(network.eval(), tmp_path / "float.onnx")
    names = plan_quantization(before, SCHEME).ranged
    ranges = calibrate(before, names, context.prepared("train"), CalibrationConfig(), context.console)
    float32, ruined = accuracy(before, context), accuracy(insert_qdq(before, ranges, SCHEME).model, context)
    assert float32 > ruined + 0.2

    config = Config(epochs=8, batch_size=8, lr=0.005, scheme="x86-vnni")
    trained = run(network, context, config)
    learned = json.loads((context.folder / LEARNED).read_text())
    after = export(trained, tmp_path / "after.onnx")
    assert learned["scheme"] == "x86-vnni"
    assert set(learned["ranges"]) == set(
        plan_quantization(after, SCHEME).ranged
    )  # a second export gives the same names
    shipped = insert_qdq(after, learned["ranges"], SCHEME).model
    history = json.loads((context.folder / "history.json").read_text())
    assert accuracy(shipped, context) == pytest.approx(history[-1]["val"]["top1"], abs=0.05)
    assert accuracy(shipped, context) > ruined + 0.15


@pytest.mark.usefixtures("one_thread")
def test_names_of_the_network_freeze_and_scale_layers(make_context: MakeContext) -> None:
    context = make_context("1-qat")
    torch.manual_seed(0)
    network = Small().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = Config(
        epochs=1, batch_size=8, lr=0.005, scheme="generic", freeze=("first",), lr_scale={"head": 1e-4}, teacher=None
    )
    after = run(network, context, config).state_dict()
    moved = {name: float((after[name] - before[name]).abs().mean()) for name in before if name.endswith("weight")}
    assert moved["first.weight"] == pytest.approx(0, abs=1e-6)
    assert moved["second.weight"] > 1000 * moved["head.weight"] > 0


@pytest.mark.parametrize(("field", "value"), [("freeze", ("norm",)), ("lr_scale", {"weights.layer0": 0.1})])
def test_modules_without_layers_are_unknown(make_context: MakeContext, field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field}: there is no module"):
        run(Small().eval(), make_context("1-qat"), Config(epochs=1, scheme="generic", **{field: value}))


def test_wrong_settings_raise() -> None:
    features = {"teacher": {"loss": "features", "layers": {"first": "first"}}}
    for wrong in (
        features,
        {"scheme": "vnni"},
        {"teacher": {"share": 2}},
        {"teacher": {"temperature": 0}},
        {"bits": 4},
    ):
        with pytest.raises(ValidationError):
            Config(**wrong)  # type: ignore[arg-type]
