"""Examples of a bundle: the files and the header with the manifest's constants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from export.application import examples, header
from runtimes.artifact import Artifact, Manifest
from runtimes.preprocessing import Preprocessing

MANIFEST = Manifest(
    "0" * 64, 1, "onnx", "int8", "images", (None, 3, 8, 8), "logits", Preprocessing(9, 8, mean=(0.5, 0.25, 1e-05)),
    ('a "quoted"\nname', "grün", "c\\d"), session_options={"session.qdq": "1"},
)  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        'const std::string file = "model.onnx";',
        'const char* const input = "images";',
        "const int batch = 1;",
        "const int resized_width = 9;",
        "const int height = 8;",
        'const std::string channels = "rgb";',
        "const bool channels_first = true;",
        "const std::vector<float> mean = {0.5, 0.25, 1e-05};",
        "const bool takes_pixels = false;",
        "const float threshold = 0;",
        'const std::vector<std::string> labels = {"a \\"quoted\\"\\nname", "grün", "c\\\\d"};',
        'const std::vector<std::pair<std::string, std::string>> session_options = {{"session.qdq", "1"}};',
    ],
)
def test_the_header_holds_the_manifest(line: str) -> None:
    assert line in header(Artifact(Path("model.onnx"), MANIFEST)).splitlines()


def test_probabilities_pixels_and_a_fixed_batch_are_known_to_the_header() -> None:
    changed = replace(MANIFEST, output="probabilities", input_dtype="uint8", input_shape=(4, 3, 8, 8))
    text = header(Artifact(Path("model.onnx"), changed))
    for line in ("const float threshold = 0.5;", "const bool takes_pixels = true;", "const int batch = 4;"):
        assert line in text


def test_only_onnx_files_have_examples() -> None:
    assert "examples/predict.py" in examples(Artifact(Path("model.onnx"), MANIFEST))
    assert examples(Artifact(Path("model.tflite"), replace(MANIFEST, format="tflite"))) == {}
