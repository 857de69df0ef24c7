"""Find the artifact of a run that is deployed to a target."""

from __future__ import annotations

import re
from pathlib import Path

from compress.report.report import ARTIFACTS, Report
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.target import Target


def artifact_for(report: Report, folder: Path, target: str | None) -> tuple[Artifact, Target]:
    """Return the ONNX file that a run made for a target (the first unless named), and the target.

    That is the last of the target's files. For a TensorRT engine it is the ONNX file that the engine was built from, as
    a board builds its own engine. Raises InputError for an unknown target.
    """
    files = [(measurement.target, measurement.artifact) for measurement in report.measurements]
    files += [(file.target, file.artifact) for file in report.unmeasured]
    names = list(dict.fromkeys(described.name for described, _ in files))
    if target not in (None, *names):
        raise InputError(f"{folder}: has no target '{target}'; it has {', '.join(names)}")
    described, file = [pair for pair in files if pair[0].name == (target or names[0])][-1]
    return Artifact.load(folder / ARTIFACTS / re.sub(r"-sm\d+\.engine$", ".onnx", file)), described
