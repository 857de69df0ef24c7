"""Lineage records: the JSON of every kind, and what happens to records of other versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtimes.lineage import (
    KINDS,
    Attempt,
    BuildRecord,
    CalibrationSettings,
    EngineLayer,
    ExportRecord,
    Float16Record,
    GivenRecord,
    KernelProbe,
    LitertRecord,
    NetworkRecord,
    OtherRecord,
    Parity,
    QuantizedLayer,
    QuantizeRecord,
    Record,
    RuntimeNode,
    SelfContainedRecord,
    Speedup,
    StageRecord,
    VerifyRecord,
    find_record,
    read_lineage,
    read_record,
)

SHA256 = "ab" * 32
PARITY = Parity(64, 1.0, 0.25, None)
PARITY_JSON = {"images": 64, "agreement": 1.0, "max_logit_difference": 0.25, "sqnr_db": None}
OLDER = Path(__file__).parents[1] / "samples" / "schema-1" / "report.json"

NNCF = {"step": "quantize", "from": SHA256, "engine": "nncf", "calibration_images": 9, "calibration_sha256": SHA256}
EVERY_KIND: list[tuple[Record, dict[str, Any]]] = [
    (NetworkRecord({"arch": "resnet", "width": 0.25}), {"step": "network", "arch": "resnet", "width": 0.25}),
    (StageRecord({"epochs": 3, "stage": "train"}), {"step": "train", "epochs": 3, "stage": "train"}),
    (ExportRecord(PARITY), {"step": "export", "parity_with_torch": PARITY_JSON}),
    (GivenRecord("m.onnx", SHA256), {"step": "given", "file": "m.onnx", "sha256": SHA256}),
    (SelfContainedRecord(PARITY), {"step": "self-contained", "parity_with_plain": PARITY_JSON}),
    (QuantizeRecord(SHA256, "nncf", 9, SHA256), NNCF),
    (
        QuantizeRecord(
            SHA256, "compress", 9, SHA256, CalibrationSettings("percentile", 99.9), 3,
            (Attempt("nearest rounding", 20.5, 0.75, True),), {"Conv": 1},
            (QuantizedLayer("a", "Conv", 8, 30.5, "int8", 7, 2, True), QuantizedLayer("b", "Gemm", 2, None, "float32")),
            "calibrated", KernelProbe(False, True, False, True), Speedup(2.0, 1.75, 2.25),
        ),
        {
            **NNCF, "engine": "compress", "calibration": {"method": "percentile", "percentile": 99.9},
            "held_out_images": 3,
            "attempts": [{"step": "nearest rounding", "sqnr_db": 20.5, "agreement": 0.75, "kept": True}],
            "float_ops": {"Conv": 1},
            "layers": [
                {"name": "a", "op": "Conv", "outputs": 8, "sqnr_db": 30.5, "precision": "int8", "weight_bits": 7,
                 "limited_channels": 2, "neighbours_limited": True},
                {"name": "b", "op": "Gemm", "outputs": 2, "sqnr_db": None, "precision": "float32"},
            ],
            "ranges": "calibrated",
            "probe": {"dense_saturates": False, "depthwise_saturates": True, "gemm_saturates": False,
                      "limited_is_exact": True},
            "speedup_p50": {"value": 2.0, "low": 1.75, "high": 2.25},
        },
    ),
    (VerifyRecord(PARITY), {"step": "verify", "parity_with_float32": PARITY_JSON}),
    (
        VerifyRecord(PARITY, {"int8": (RuntimeNode("n", "QLinearConv", "integer", None, 0.5),)}),
        {"step": "verify", "parity_with_float32": PARITY_JSON,
         "runs": {"int8": [{"name": "n", "op": "QLinearConv", "kind": "integer", "layer": None, "time_ms": 0.5}]}},
    ),
    (Float16Record(SHA256, PARITY), {"step": "float16", "from": SHA256, "parity_with_given": PARITY_JSON}),
    (LitertRecord(PARITY), {"step": "litert", "parity_with_onnx": PARITY_JSON}),
    (
        BuildRecord(SHA256, "tensorrt", "10.3", "8.7", (1, 1, 32), None, (EngineLayer("a", "k", ("Int8", "Int8")),)),
        {"step": "build", "from": SHA256, "package": "tensorrt", "version": "10.3", "compute_capability": "8.7",
         "batch": [1, 1, 32], "dla": None, "layers": [{"name": "a", "kernel": "k", "inputs": ["Int8", "Int8"]}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "content"), EVERY_KIND)
def test_json_of_every_kind(record: Record, content: dict[str, Any]) -> None:
    assert json.dumps(record.to_json()) == json.dumps(content)  # the order of the keys, too
    assert read_record(content) == record


def test_every_kind_is_tested() -> None:
    assert {content["step"] for _, content in EVERY_KIND} == {*KINDS, "train"}


@pytest.mark.parametrize("content", [
    {"step": "sparsify", "share": 0.5},  # an unknown kind
    {"step": "train", "epochs": 3},  # a stage always names itself
    {**NNCF, "colour": "blue"},  # a field of a newer version
    {key: value for key, value in NNCF.items() if key != "from"},
    {**NNCF, "calibration_images": "9"},
    {**NNCF, "calibration_images": True},
    {**NNCF, "attempts": [{"step": "nearest rounding"}]},
    {**NNCF, "attempts": 3},
    {"step": "verify", "parity_with_float32": {**PARITY_JSON, "max_logit_difference": None}},
    {"step": "verify", "parity_with_float32": PARITY_JSON, "runs": {"int8": [{"kind": "integer"}]}},
    {"step": "build", "from": SHA256, "package": "tensorrt", "version": "10.3", "compute_capability": "8.7",
     "batch": [1, 32], "dla": None, "layers": []},
])  # fmt: skip
def test_records_of_other_versions_are_kept_as_they_are(content: dict[str, Any]) -> None:
    record = read_record(content)
    assert isinstance(record, OtherRecord)
    assert record.to_json() == content


@pytest.mark.parametrize("content", [None, 3, "network", [], {"stage": "train"}, {"step": 3}])
def test_a_record_without_a_step_is_an_error(content: object) -> None:
    with pytest.raises(ValueError, match="objects with a step"):
        read_record(content)


@pytest.mark.parametrize("content", [{"step": "network"}, "text"])
def test_a_lineage_that_is_no_list_is_an_error(content: Any) -> None:
    with pytest.raises(ValueError, match="lineage is not a list"):
        read_lineage(content)


def test_whole_numbers_are_accepted_for_floats() -> None:
    record = read_record({"step": "export", "parity_with_torch": {**PARITY_JSON, "agreement": 1}})
    assert isinstance(record, ExportRecord)


def test_find_record_returns_the_first_of_a_kind() -> None:
    first, second = StageRecord({"stage": "train"}), StageRecord({"stage": "prune"})
    assert find_record((NetworkRecord({}), first, second), StageRecord) is first
    assert find_record((first,), BuildRecord) is None


def test_records_of_an_older_run_are_typed_and_come_back_the_same() -> None:
    for artifact in json.loads(OLDER.read_text())["artifacts"]:
        records = read_lineage(artifact["lineage"])
        assert [record.to_json() for record in records] == artifact["lineage"]
        assert not any(isinstance(record, OtherRecord) for record in records)


@pytest.mark.parametrize(("inputs", "expected"), [
    (("Int8",), True), (("Int8", "Int8"), True), (("Int8", "Half"), False), ((), False)
])  # fmt: skip
def test_an_engine_layer_is_int8_if_all_its_inputs_are(inputs: tuple[str, ...], expected: bool) -> None:
    assert EngineLayer("a", "k", inputs).is_int8 is expected


def test_the_setting_step_of_a_pruning_stage_takes_the_place_of_the_kind() -> None:
    content = {"step": 8, "stage": "prune", "latency": 0.5}
    record = read_record(content)
    assert record == StageRecord(content)
    assert record.to_json() == content
