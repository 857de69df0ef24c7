"""Both engines, for every instruction set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest

from compress.quantization.post_training import EXACT_KERNELS, quantize
from compress.quantization.schemes import SCHEMES
from runtimes import evalset
from runtimes.preprocessing import Preprocessing
from runtimes.target import InstructionSet

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def images(tmp_path: Path) -> evalset.EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    names = tuple(f"{index}.png" for index in range(24))
    return evalset.write(tmp_path / "images", pixels, None, names, ("a", "b"), PREPROCESSING)


def sqnr_db(expected: np.ndarray, answered: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - answered) ** 2)))


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.mark.parametrize("instruction_set", sorted(SCHEMES))
def test_our_engine_is_accurate_without_a_session_option(
    instruction_set: InstructionSet, images: evalset.EvalSet
) -> None:
    model = onnx_graphs.residual_model(channels=3)
    result = quantize(model, images, instruction_set, "compress", silent)
    batch = PREPROCESSING.normalize(images.images)
    assert sqnr_db(onnx_graphs.run_model(model, batch), onnx_graphs.run_model(result.model, batch)) > 25
    assert (result.scheme, result.session_options) == (instruction_set, {})
    assert result.facts["calibration_images"] == 24


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
            if tensor.name.endswith("_weight_quantized")}  # fmt: skip


def test_no_two_neighbouring_products_overflow_int16_without_vnni(images: evalset.EvalSet) -> None:
    result = quantize(onnx_graphs.residual_model(channels=3), images, "x86-avx2", "compress", silent)
    weights = weights_of(result.model)
    assert set(result.facts["weight_bits"]) == {"first", "depthwise", "pointwise", "gemm"}
    for name in ("first", "pointwise", "gemm"):
        assert 2 * 255 * np.abs(weights[f"{name}_weight_quantized"].astype(int)).max() <= 32767


@pytest.mark.parametrize("instruction_set", ["x86-avx2", "x86-vnni"])
def test_nncf_is_the_second_engine_and_its_files_ask_for_exact_kernels_where_needed(
    instruction_set: InstructionSet, images: evalset.EvalSet
) -> None:
    model = onnx_graphs.residual_model(channels=3)
    result = quantize(model, images, instruction_set, "nncf", silent)
    batch = PREPROCESSING.normalize(images.images)
    assert sqnr_db(onnx_graphs.run_model(model, batch), onnx_graphs.run_model(result.model, batch)) > 20
    assert any(node.op_type == "QuantizeLinear" for node in result.model.graph.node)
    assert result.session_options == (EXACT_KERNELS if instruction_set == "x86-avx2" else {})


def test_nncf_calibrates_a_model_of_fixed_batch(images: evalset.EvalSet) -> None:
    model = onnx_graphs.residual_model(channels=3)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    result = quantize(model, images, "x86-vnni", "nncf", silent)
    batch = PREPROCESSING.normalize(images.images[:7])
    assert sqnr_db(onnx_graphs.run_model(model, batch), onnx_graphs.run_model(result.model, batch)) > 20


def test_nncf_sends_no_telemetry(images: evalset.EvalSet) -> None:
    quantize(onnx_graphs.residual_model(channels=3), images, "x86-vnni", "nncf", silent)
    from nncf.telemetry import telemetry

    assert os.environ["NNCF_CI"] == "1"
    assert type(telemetry).__name__ in ("MagicMock", "NNCFTelemetryStub")
