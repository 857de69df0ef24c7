"""The command doctor."""

from __future__ import annotations

import json

from command_line import call

from compress import doctor


def test_doctor_says_what_there_is_and_what_is_missing() -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for subject in ("python", "processor", "instruction set", "onnxruntime", "tensorrt", "GPU"):
        assert any(line.startswith(subject) for line in result.output.splitlines())


def test_the_findings_are_printed_as_json() -> None:
    findings = json.loads(call("doctor", "--json").stdout)
    assert set(doctor.NEEDED_BY) < set(findings)
    assert "cores" in findings["processor"]
