"""Tables of a quantization: their cells, and that they fit a terminal of 80 columns."""

from __future__ import annotations

from compress.quantization import tables as quantization_tables
from runtimes.artifact import Manifest
from runtimes.lineage import read_lineage
from runtimes.preprocessing import Preprocessing

LAYER = {"name": "a/very/long/name/of/a/layer/conv_123", "op": "depthwise Conv", "outputs": 1280, "sqnr_db": 31.46,
         "precision": "int8", "weight_bits": 8, "limited_channels": 12}  # fmt: skip
FLOAT = {"name": "stem", "op": "Conv", "outputs": 32, "sqnr_db": None, "precision": "float32"}
NODES = [
    {"name": "x", "op": "QLinearConv", "kind": "integer", "layer": LAYER["name"], "time_ms": 0.5},
    {"name": "y", "op": "QLinearAdd", "kind": "integer", "layer": None, "time_ms": 0.25},
    {"name": "z", "op": "QuantizeLinear", "kind": "conversion", "layer": None, "time_ms": 0.125},
]
QUANTIZED = {"step": "quantize", "from": "0" * 64, "engine": "compress", "calibration_images": 90,
             "calibration_sha256": "1" * 64}  # fmt: skip
PARITY = {"images": 9, "agreement": 1.0, "max_logit_difference": 0.5, "sqnr_db": 25.0}
VERIFIED = {"step": "verify", "parity_with_float32": PARITY, "runs": {"int8": NODES}}


def manifest(*lineage: dict[str, object]) -> Manifest:
    """Return a manifest whose lineage is read from JSON objects."""
    return Manifest("0" * 64, 1, "onnx", "int8", "x", (1, 3, 8, 8), "y", Preprocessing(8, 8), ("a",),
                    scheme="arm64", lineage=read_lineage(lineage))  # fmt: skip


def quantize_step() -> dict[str, object]:
    attempt = {"step": "error feedback", "sqnr_db": 25.04, "agreement": 0.9876, "kept": False}
    return {**QUANTIZED, "held_out_images": 9, "attempts": [attempt], "layers": [LAYER, FLOAT]}


def test_attempts_layers_and_executed_operators() -> None:
    attempts, layers, operators = quantization_tables.tables(manifest(quantize_step(), VERIFIED))
    assert attempts.title == "arm64: attempts, judged on 9 held-out images"
    assert (layers.title, operators.title) == ("layers", "executed operators")
    assert attempts.rows == (("error feedback", "25.0", "0.988", "no"),)
    assert layers.rows == (
        ("of/a/layer/conv_123"[-17:], "depthwise", "1280", "int8", "12", "31.5", "0.500", ""),
        ("stem", "Conv", "32", "float32", "", "", "", ""),
    )
    assert operators.rows == (
        ("int8", "integer", "2", "0.75", "QLinearConv, QLinearAdd"),
        ("int8", "conversion", "1", "0.12", "QuantizeLinear"),
    )


def test_without_held_out_images_the_title_says_so_and_no_agreement_is_shown() -> None:
    attempt = {"step": "error feedback", "sqnr_db": 91.64, "agreement": None, "kept": True}
    record = {**quantize_step(), "calibration_images": 5, "held_out_images": 0, "attempts": [attempt]}
    attempts, _ = quantization_tables.tables(manifest(record))
    assert attempts.title == "arm64: attempts, judged on the 5 images of the fit: nothing is held out"
    assert attempts.rows == (("error feedback", "91.6", "-", "yes"),)


def test_text_is_left_aligned_and_numbers_right() -> None:
    for table in quantization_tables.tables(manifest(quantize_step(), VERIFIED)):
        left_aligned = {column.name for column in table.columns if column.align == "left"}
        assert left_aligned == {column.name for column in table.columns} & {
            "attempt", "layer", "kind", "weights", "file", "operators", "slowest"
        }  # fmt: skip


def test_tables_fit_80_columns() -> None:
    for table in quantization_tables.tables(manifest(quantize_step(), VERIFIED)):
        lines = [[column.name for column in table.columns], *table.rows]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        assert sum(widths) + 2 * len(widths) <= 80


def test_files_of_nncf_have_no_tables() -> None:
    assert quantization_tables.tables(manifest({**QUANTIZED, "engine": "nncf"})) == []


def test_files_that_were_not_profiled_have_no_operators() -> None:
    titles = [table.title for table in quantization_tables.tables(manifest(quantize_step()))]
    assert titles == ["arm64: attempts, judged on 9 held-out images", "layers"]


def test_operators_that_were_reverted_to_float() -> None:
    reverted = [
        {"name": "add_epsilon", "op": "Add", "sqnr_db": -3.61, "integer_ms": 0.004, "float_ms": 0.0125},
        {"name": "a/very/long/name/of/a/layer/conv_123", "op": "Conv", "sqnr_db": 7.0},
    ]
    step = {**quantize_step(), "reverted": reverted, "reverting_ms": 0.25}
    _, table, _, _ = quantization_tables.tables(manifest(step, VERIFIED))
    assert table.title == "reverted to float"
    assert table.rows == (
        ("add_epsilon", "Add", "-3.6", "0.004", "0.013"),
        ("of/a/layer/conv_123"[-17:], "Conv", "7.0", "", ""),
        ("all, with conversions", "", "", "", "+0.250"),
    )
