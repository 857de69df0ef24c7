"""Write bundles: an artifact and everything that a board needs, in one reproducible tar."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

import runtimes
from export import application
from export.scheme import summed_exactly
from export.trt_lint import require_clean
from runtimes import bundle
from runtimes.artifact import Artifact, manifest_path
from runtimes.evalset import EvalSet
from runtimes.files import replacing, sha256_file
from runtimes.measure import evaluate
from runtimes.target import Target

PACKAGE = Path(runtimes.__file__).parent
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
MAIN = "from runtimes.__main__ import main\n\nmain()\n"


def write_bundle(artifact: Artifact, target: Target, sample_folder: Path, sample: EvalSet, path: Path) -> None:
    """Write the bundle of an artifact for a target to `path`; raises as `runtimes.measure.evaluate` does.

    sample: a few test images, stored in `sample_folder`; the artifact's logits for them are part of the bundle.
    """
    if target.runtime == "trt":
        require_clean(
            onnx.load(artifact.path), artifact.path.name
        )  # the board builds the engine and cannot check the graph
    golden = _golden(artifact, target, sample)
    files: dict[str, bytes | Path] = {
        bundle.PROGRAM: program(),
        artifact.path.name: artifact.path,
        manifest_path(artifact.path).name: manifest_path(artifact.path),
        bundle.GOLDEN: _npy(golden),
        **application.examples(artifact),
        **{f"{bundle.SAMPLE}/{file.name}": file for file in sorted(sample_folder.iterdir()) if file.is_file()},
    }
    description = {
        "schema_version": bundle.SCHEMA_VERSION,
        "artifact": artifact.path.name,
        "recipe": artifact.manifest.recipe,
        "target": asdict(target),
        "files": {name: _sha256(content) for name, content in sorted(files.items())},
    }
    files[bundle.DESCRIPTION] = (json.dumps(description, indent=1) + "\n").encode()
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            _add(archive, name, content)


def _golden(artifact: Artifact, target: Target, sample: EvalSet) -> npt.NDArray[np.float32]:
    """Return the golden logits: from ONNX Runtime on this CPU for an ONNX file, otherwise from the target's runtime.

    ONNX Runtime uses kernels with 32-bit sums, so that a file for another processor does not saturate.
    """
    if artifact.manifest.format != "onnx":
        return evaluate(artifact, target, sample)
    here = Target("golden", threads=target.threads, batch=artifact.manifest.input_shape[0] or 1)
    return evaluate(summed_exactly(artifact), here, sample)


def program() -> bytes:
    """Return the bytes of `run.pyz`, a zipapp of the package `runtimes`."""
    packed = io.BytesIO()
    packed.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        files = {"__main__.py": MAIN.encode()}
        files |= {
            f"runtimes/{file.relative_to(PACKAGE).as_posix()}": file.read_bytes() for file in PACKAGE.rglob("*.py")
        }
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    """Add a file without owner and time, so that the same content gives the same tar."""
    member = tarfile.TarInfo(name)
    member.mode = 0o755 if name == bundle.PROGRAM else 0o644
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        return
    member.size = content.stat().st_size
    with content.open("rb") as stream:
        archive.addfile(member, stream)


def _npy(array: npt.NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _sha256(content: bytes | Path) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_file(content)
