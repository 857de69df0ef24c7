"""The command doctor."""

from __future__ import annotations

from command_line import call


def test_doctor_says_what_there_is_and_what_is_missing() -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for subject in ("python", "processor", "instruction set", "onnxruntime", "tensorrt", "GPU"):
        assert any(line.startswith(subject) for line in result.output.splitlines())
