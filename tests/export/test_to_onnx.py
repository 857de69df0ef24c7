"""Tests of export.to_onnx: correct, standard files without traces of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_graphs import optimized_ops, ranges_of, run_model, sqnr_db, unsigned_scheme
from torch import nn

from compress.recipe import plugins
from export.quantize import insert_qdq
from export.to_onnx import to_onnx
from runtimes.errors import CompressError

SIDE = 64


class Small(nn.Module):
    """Conv, BatchNorm, ReLU6, global mean, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.relu6(self.norm(self.conv(images))).mean((2, 3)))


def with_statistics(network: nn.Module) -> nn.Module:
    """Give the BatchNorms statistics of data, so that a wrong fold would show."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, SIDE, SIDE) * 2 + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network, path = with_statistics(Small()), tmp_path_factory.mktemp("onnx") / "small.onnx"
    to_onnx(network, path, SIDE, 18, None)
    return network, path


def test_the_file_answers_like_torch_for_any_batch(small: tuple[nn.Module, Path]) -> None:
    network, path = small
    for batch in (1, 3, 7):
        images = torch.randn(batch, 3, SIDE, SIDE)
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(run_model(onnx.load(path), images.numpy()), expected, atol=1e-5)


def test_the_file_is_standard_and_says_nothing_of_the_machine(small: tuple[nn.Module, Path]) -> None:
    model, content = onnx.load(small[1]), small[1].read_bytes()
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [node.op_type for node in model.graph.node] == ["Conv", "Clip", "GlobalAveragePool", "Flatten", "Gemm"]
    assert b"site-packages" not in content
    assert str(Path.cwd()).encode() not in content
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "logits"]


def test_a_fixed_batch_is_fixed(tmp_path: Path) -> None:
    made = to_onnx(Small().eval(), tmp_path / "fixed.onnx", SIDE, 18, 4)
    assert made.input_shape == (4, 3, SIDE, SIDE)
    shape = onnx.load(made.path).graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_value for dimension in shape] == [4, 3, SIDE, SIDE]


def test_the_input_has_the_shape_of_the_images(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    made = to_onnx(network, tmp_path / "grey.onnx", (1, 8, 24), 18, None)
    assert made.input_shape == (None, 1, 8, 24)
    images = torch.rand(3, 1, 8, 24)
    with torch.no_grad():
        np.testing.assert_allclose(run_model(onnx.load(made.path), images.numpy()), network(images), atol=1e-5)


@pytest.mark.parametrize("opset", [18, 20])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    made = to_onnx(Small().eval(), tmp_path / "m.onnx", SIDE, opset, 1)
    assert onnx.load(made.path).opset_import[0].version == opset


class PreActivation(Small):
    """As in DenseNet: a BatchNorm behind what no layer computed, then a convolution with its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 8, 3, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.relu(self.first(torch.cat([images, -images], 1))))


def test_a_norm_that_stands_behind_no_layer_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = with_statistics(PreActivation())
    model = onnx.load(to_onnx(network, tmp_path / "m.onnx", SIDE, 18, None).path)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1
    images = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        np.testing.assert_allclose(run_model(model, images.numpy()), network(images).numpy(), atol=1e-5)


def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    network = Small().eval()
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    with pytest.raises(CompressError, match="NaN or infinity"):
        to_onnx(network, tmp_path / "m.onnx", SIDE, 18, 1)
    assert list(tmp_path.iterdir()) == []


ARCHITECTURES = [  # the exporter needs 5 to 20 s for each
    pytest.param({"arch": "mobilenet_v3", "size": "small"}, id="mobilenet_v3-small", marks=pytest.mark.slow),
    pytest.param({"arch": "mobilenet_v3", "size": "large"}, id="mobilenet_v3-large", marks=pytest.mark.slow),
    pytest.param({"arch": "mobilenet_v2"}, id="mobilenet_v2", marks=pytest.mark.slow),
    pytest.param({"arch": "resnet", "depth": 18}, id="resnet-18"),
    pytest.param({"arch": "resnet", "depth": 50}, id="resnet-50", marks=pytest.mark.slow),
    pytest.param({"arch": "efficientnet_lite", "size": 0}, id="efficientnet_lite-0", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_every_network_exports_and_quantizes_into_integer_convolutions(model: dict[str, Any], tmp_path: Path) -> None:
    family = plugins.load("models", model["arch"])
    torch.manual_seed(0)
    network = with_statistics(family.build(family.Config(**model), 10))
    to_onnx(network, tmp_path / "m.onnx", SIDE, 18, None)
    float32, images = onnx.load(tmp_path / "m.onnx"), torch.randn(8, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(run_model(float32, images.numpy()), expected, atol=1e-3 * np.abs(expected).max())

    scheme = unsigned_scheme()
    quantized = insert_qdq(float32, ranges_of(float32, images.numpy(), scheme), scheme).model
    assert sqnr_db(expected, run_model(quantized, images.numpy())) > 10
    convolutions = sum(node.op_type == "Conv" for node in float32.graph.node)
    assert optimized_ops(quantized, tmp_path).count("QLinearConv") == convolutions
