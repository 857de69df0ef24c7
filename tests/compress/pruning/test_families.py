"""Every family: pruned, it exports, agrees with torch, quantizes, and loads again from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_lively
from pydantic import TypeAdapter

from compress.networks import checkpoint
from compress.quantization.config import Quantize
from compress.quantization.int8 import make_int8
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import SCHEMES
from compress.recipe import plugins
from compress.stages.prune import Config, run
from compress.training.context import Context
from compress.training.loop import predict
from export.parity import compare
from export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.lineage import VerifyRecord, find_record
from runtimes.measure import evaluate
from runtimes.target import Target

MakeContext = Callable[..., Context]
FAMILIES = {
    "mobilenet_v2": {"arch": "mobilenet_v2"},
    "mobilenet_v3_small": {"arch": "mobilenet_v3", "size": "small"},
    "mobilenet_v3_large": {"arch": "mobilenet_v3", "size": "large"},
    "resnet18": {"arch": "resnet", "depth": 18},
    "resnet50": {"arch": "resnet", "depth": 50},
    "efficientnet_lite0": {"arch": "efficientnet_lite", "size": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_pruned_network_exports_agrees_quantizes_and_loads_again(
    family: str, make_context: MakeContext, tmp_path: Path
) -> None:
    context = make_context("1-prune")
    config = TypeAdapter(plugins.config_union("models")).validate_python(FAMILIES[family])
    torch.manual_seed(0)
    whole = make_lively(plugins.load("models", config.arch).build(config, 3))
    pruned = run(whole, context, Config(macs=0.5))

    checkpoint.save(context.folder, pruned)
    again = checkpoint.load(context.folder, config, 3)
    images = context.prepared("val")
    expected = predict(pruned, images, "cpu")
    np.testing.assert_array_equal(predict(again, images, "cpu"), expected)

    file = to_onnx(again, tmp_path / "pruned.onnx", 32, 18, None)
    manifest = Manifest(
        sha256_file(file.path), file.path.stat().st_size, "onnx", "float32", INPUT_NAME, file.input_shape, OUTPUT_NAME,
        context.preprocessing, context.classes, file.opset, versions={},
    )  # fmt: skip
    float32 = Artifact(file.path, manifest)
    parity = compare(expected, evaluate(float32, Target("here"), images))
    assert parity.agreement == 1
    assert parity.max_logit_difference < 1e-3

    request = QuantizationRequest(context.prepared("train"), SCHEMES["generic"], Quantize())
    int8 = make_int8(float32, Target("here"), request, tmp_path / "int8.onnx")
    assert int8.path.stat().st_size < 0.4 * file.path.stat().st_size
    verified = find_record(int8.manifest.lineage, VerifyRecord)
    assert verified is not None
    assert verified.parity_with_float32.sqnr_db is not None
    assert verified.parity_with_float32.sqnr_db > 10
