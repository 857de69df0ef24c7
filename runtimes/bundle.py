"""Bundles: everything that a board needs to run an artifact, packed as one tar.

bundle.json      schema version, file name of the artifact, target, sha256 of every other file
run.pyz          this package: `python run.pyz doctor | verify | bench | predict IMAGE`
MODEL            the artifact, with its manifest MODEL.json
sample/          an evaluation set of a few test images
examples/        programs in Python and C++ that use the model in an application; only for ONNX files
golden.npy       float32 (N, classes) logits of the artifact on the machine that made the bundle
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from runtimes import engine, environment, evalset
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.evalset import EvalSet
from runtimes.files import MAX_JSON_BYTES, Json, parse_json, read_json, replacing, sha256_file
from runtimes.measure import evaluate
from runtimes.target import Target

SCHEMA_VERSION = 1
DESCRIPTION, PROGRAM, SAMPLE, GOLDEN = "bundle.json", "run.pyz", "sample", "golden.npy"
MAX_UNPACKED_BYTES = 4 * 2**30
# Allowed difference of logits between processors, which sum in different orders: a share of the largest golden logit.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "int8": 5e-2}


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle whose hashes match. golden: (N, classes) logits of the sample's N images."""

    folder: Path
    artifact: Artifact
    target: Target
    sample: EvalSet
    golden: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verification:
    """Comparison of the outputs on this machine with the golden logits.

    changed: number of images with another top-1 class. undecided: of these, the number whose two largest golden logits
    are closer to each other than twice the allowed difference.
    """

    images: int
    agreement: float
    max_logit_difference: float
    allowed_difference: float
    changed: int
    undecided: int

    @property
    def passed(self) -> bool:
        """True if no difference exceeds what another order of summation explains."""
        return self.max_logit_difference <= self.allowed_difference and self.changed == self.undecided


def load(folder: Path) -> Bundle:
    """Open an unpacked bundle; raises InputError if a file is missing, changed or does not match the others."""
    description = _description(folder)
    for name, digest in description["files"].items():
        path = folder / _inside(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file; unpack the bundle again")
        if sha256_file(path) != digest:
            raise InputError(f"{path}: was changed; unpack the bundle again")
    try:
        target = Target.from_json(description["target"])
        golden = evalset.read_array(folder / GOLDEN)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: not a bundle ({error}); make it again") from error
    artifact, sample = Artifact.load(folder / description["artifact"]), evalset.load(folder / SAMPLE)
    if golden.dtype != np.float32 or golden.shape != (len(sample), len(artifact.manifest.labels)):
        raise InputError(f"{folder / GOLDEN}: is {golden.dtype} {golden.shape}, not a logit per image and class")
    return Bundle(folder, artifact, target, sample, golden)


def with_engine(bundle: Bundle, console: Console) -> Bundle:
    """Return the bundle with its TensorRT engine, built on this machine if needed; unchanged for other runtimes."""
    if bundle.target.runtime != "trt":
        return bundle
    artifact = bundle.artifact
    path = bundle.folder / "engines" / f"{artifact.path.stem}.engine"
    built = engine.engine(artifact, bundle.target, path, console, path.with_suffix(".timing"))
    return replace(bundle, artifact=built)


def require_kernels(bundle: Bundle) -> None:
    """Raise UnavailableError if this processor's kernels would saturate with the file's integers."""
    here, scheme = environment.detect_instruction_set(), bundle.artifact.manifest.scheme
    if (scheme, here) == ("x86-vnni", "x86-avx2"):
        raise UnavailableError(
            f"{bundle.artifact.path.name} is for processors with VNNI; this one lacks it, and sums would saturate "
            "silently. Bundle a target with instruction_set: x86-avx2"
        )


def verify(bundle: Bundle) -> Verification:
    """Run the sample and compare the logits with the golden ones; raises as `measure` does."""
    require_kernels(bundle)
    logits = evaluate(bundle.artifact, bundle.target, bundle.sample)
    golden = bundle.golden
    allowed = TOLERANCE[bundle.artifact.manifest.precision] * max(float(np.abs(golden).max()), 1e-6)
    ascending = np.sort(golden, axis=1)
    margin = ascending[:, -1] - ascending[:, -2] if golden.shape[1] > 1 else np.full(len(golden), np.inf)
    changed = logits.argmax(1) != golden.argmax(1)
    return Verification(
        images=len(golden),
        agreement=float(1 - changed.mean()),
        max_logit_difference=float(np.abs(logits - golden).max()),
        allowed_difference=allowed,
        changed=int(changed.sum()),
        undecided=int((changed & (margin <= 2 * allowed)).sum()),
    )


def recipe_of(tar: Path) -> str | None:
    """Return the name of the recipe that a bundle was made from; raises InputError if `tar` is not a bundle."""
    _require_file(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            stream = archive.extractfile(DESCRIPTION)
            recipe = parse_json(stream.read(MAX_JSON_BYTES))["recipe"] if stream else None
    except (tarfile.TarError, EOFError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{tar}: has no readable {DESCRIPTION}; give a tar made by compress bundle") from error
    return str(recipe) if recipe else None


def unpack(tar: Path, folder: Path) -> Bundle:
    """Unpack a bundle into a folder and open it.

    Raises InputError, and writes nothing, if `tar` is not a bundle, if a member is not a regular file or lies outside
    the folder, or if the content exceeds 4 GiB.
    """
    _require_file(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            members = archive.getmembers()
            _check(tar, members)
            for member in members:
                stream = archive.extractfile(member)
                assert stream is not None, "a regular file"
                with replacing(folder / member.name) as temporary, temporary.open("wb") as out:
                    while piece := stream.read(1 << 20):
                        out.write(piece)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{tar}: not a readable tar ({error}); make the bundle again") from error
    try:
        return load(folder)
    except InputError as error:  # name the tar, not the temporary folder
        raise InputError(f"{tar}: {str(error).replace(f'{folder}/', '').removeprefix(f'{folder}: ')}") from error


def _require_file(tar: Path) -> None:
    if not tar.is_file():
        raise InputError(f"{tar}: no such file")


def _check(tar: Path, members: list[tarfile.TarInfo]) -> None:
    for member in members:
        if not member.isfile():
            raise InputError(f"{tar}: {member.name} is not a regular file; give a tar made by compress bundle")
        try:
            _inside(member.name)
        except InputError as error:
            raise InputError(f"{tar}: {error}") from error
    if sum(member.size for member in members) > MAX_UNPACKED_BYTES:
        raise InputError(f"{tar}: would unpack to more than {MAX_UNPACKED_BYTES >> 30} GiB")
    if DESCRIPTION not in {member.name for member in members}:
        raise InputError(f"{tar}: has no {DESCRIPTION}; give a tar made by compress bundle")


def _inside(name: str) -> str:
    """Return `name` if it is a path inside the bundle's folder; raises InputError otherwise."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[A-Za-z0-9][\w./-]*", name, re.ASCII):
        raise InputError(f"{name!r} is not a file name of a bundle; give a tar made by compress bundle")
    return name


def _description(folder: Path) -> Json:
    path = folder / DESCRIPTION
    try:
        content: Json = read_json(path)
        if content["schema_version"] != SCHEMA_VERSION:
            version = content["schema_version"]
            raise InputError(
                f"{path}: schema version {version}, this version reads {SCHEMA_VERSION}; make the bundle again"
            )
        _check_types(content)
        listed = {_inside(name) for name in content["files"]}
        required = {GOLDEN, content["artifact"], f"{content['artifact']}.json", f"{SAMPLE}/images.npy"}
        if required - listed:
            raise InputError(f"{path}: has no sha256 of {sorted(required - listed)[0]}; make the bundle again")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the folder of an unpacked bundle") from None
    except KeyError as error:
        raise InputError(f"{path}: not a bundle's description (it has no {error}); make the bundle again") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a bundle's description ({error}); make the bundle again") from error
    return content


def _check_types(content: Json) -> None:
    """Raise KeyError or ValueError for a missing key of a description, or one whose value has another type."""
    for key, kind in {"artifact": str, "target": dict, "files": dict}.items():
        if not isinstance(content[key], kind):
            raise ValueError(f"{key} is {content[key]!r:.60}, not a {'text' if kind is str else 'mapping'}")
    if not all(isinstance(digest, str) for digest in content["files"].values()):
        raise ValueError("files are not names with their sha256")
    if content["recipe"] is not None and not isinstance(content["recipe"], str):
        raise ValueError(f"recipe is {content['recipe']!r:.60}, not a name")


def require_passed(verification: Verification) -> None:
    """Raise CompressError if a verification failed."""
    if not verification.passed:
        raise CompressError(
            f"the outputs differ from those in the bundle: {verification.changed} of {verification.images} images have "
            f"another top-1 class, logits differ by {verification.max_logit_difference:.3g} where "
            f"{verification.allowed_difference:.3g} is allowed"
        )


def to_json(verification: Verification) -> Json:
    """Return a value that JSON can hold."""
    return {**asdict(verification), "passed": verification.passed}
