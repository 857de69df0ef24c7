"""The quantization method `nncf`: with NNCF, with a stand-in that shows its arguments, and without it."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_graphs
import pytest

from compress.quantization import nncf_method
from runtimes.errors import UnavailableError
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


def images(count: int) -> EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return EvalSet(pixels, None, tuple(map(str, range(count))), tuple("abcde"), PREPROCESSING, "digest")


def model(batch: int | None) -> onnx.ModelProto:
    graph = onnx_graphs.residual_model(channels=3)
    if batch:
        for value in (graph.graph.input[0], graph.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return graph


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the calls of a stand-in for NNCF, whose quantization returns the model as it is."""
    recorded: list[dict[str, Any]] = []

    def quantize(evalset: onnx.ModelProto, dataset: list[Any], subset_size: int) -> onnx.ModelProto:
        print("a progress bar")
        recorded.append({"model": evalset, "batches": dataset, "subset_size": subset_size})
        return evalset

    stand_in = SimpleNamespace(
        set_log_level=lambda level: None,
        Dataset=lambda items, transform: [transform(item) for item in items],
        quantize=quantize,
    )
    monkeypatch.setitem(sys.modules, "nncf", stand_in)  # type: ignore[arg-type]
    return recorded


@pytest.mark.parametrize(("batch", "count", "sizes"), [(None, 3, [1, 1, 1]), (4, 8, [4, 4]), (4, 6, [4, 4])])
def test_all_images_are_calibration_data_and_the_first_ones_fill_up_the_last_batch(
    batch: int | None, count: int, sizes: list[int], calls: list[dict[str, Any]]
) -> None:
    evalset = images(count)
    nncf_method.quantize(model(batch), evalset)
    (call,) = calls
    assert [len(inputs["x"]) for inputs in call["batches"]] == sizes
    assert call["subset_size"] == len(sizes)
    normalized = np.concatenate([inputs["x"] for inputs in call["batches"]])
    order = np.arange(sum(sizes)) % count
    mean, std = (np.asarray(values, np.float32) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    expected = ((evalset.images[order].astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalized, expected, rtol=1e-5, atol=1e-5)


def test_progress_bars_are_hidden_and_telemetry_is_off(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    nncf_method.quantize(model(None), images(2))
    assert capsys.readouterr().out == ""
    assert os.environ["NNCF_CI"] == "1"


def test_a_quantized_model_is_near_the_float32_model() -> None:
    pytest.importorskip("nncf")
    graph, evalset = model(None), images(16)
    quantized = nncf_method.quantize(graph, evalset)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in quantized.graph.node}
    assert not any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    batch = PREPROCESSING.normalize(evalset.images)
    expected, answers = onnx_graphs.run_model(graph, batch), onnx_graphs.run_model(quantized, batch, exact=True)
    assert onnx_graphs.sqnr_db(expected, answers) > 20


def test_without_nncf_the_error_names_the_key_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=r"quantize\.method: nncf needs .* pip install nncf"):
        nncf_method.quantize(model(None), images(2))
