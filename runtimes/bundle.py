"""A bundle: a folder with all that a board needs, packed as one tar.

bundle.json      schema version, name of the artifact, target, sha256 of every other file
run.pyz          this package: `python run.pyz doctor | verify | bench | predict IMAGE`
MODEL            the artifact, and MODEL.json, its manifest
sample/          an evaluation set of some test images
golden.npy       float32 (N, classes) logits that the artifact gave on the machine that made the bundle
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes import engine, environment, evalset
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.evalset import EvalSet
from runtimes.files import MOST_JSON_BYTES, parse_json, read_json, replacing, sha256_file
from runtimes.measure import evaluate
from runtimes.target import Target

SCHEMA_VERSION = 1
DESCRIPTION, PROGRAM, SAMPLE, GOLDEN = "bundle.json", "run.pyz", "sample", "golden.npy"
MOST_UNPACKED_BYTES = 4 * 2**30
# Share of the largest golden logit by which other processors may differ, whose sums have another order.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "int8": 5e-2}


@dataclass(frozen=True)
class Bundle:
    """What was unpacked, its hashes compared. golden: (N, classes) logits of the sample's N images."""

    folder: Path
    artifact: Artifact
    target: Target
    sample: EvalSet
    golden: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verification:
    """How the answers here differ from those where the bundle was made.

    changed: images with another top-1. undecided: of these, those whose two best golden logits lie nearer to each other
    than twice the difference that is allowed.
    """

    images: int
    agreement: float
    max_logit_difference: float
    allowed_difference: float
    changed: int
    undecided: int

    @property
    def passed(self) -> bool:
        """Whether nothing differs by more than the order of sums explains."""
        return self.max_logit_difference <= self.allowed_difference and self.changed == self.undecided


def load(folder: Path) -> Bundle:
    """Open an unpacked bundle; raises InputError where a file is missing, not as it was, or was never in it."""
    description = _description(folder)
    for name, digest in description["files"].items():
        path = folder / _inside(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file; unpack the bundle again")
        if sha256_file(path) != digest:
            raise InputError(f"{path}: is not the file that was bundled; unpack the bundle again")
    try:
        target = Target.from_json(description["target"])
        golden = np.load(folder / GOLDEN, allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"{folder}: not a bundle ({error}); make it again") from error
    artifact, sample = Artifact.load(folder / description["artifact"]), evalset.load(folder / SAMPLE)
    if golden.dtype != np.float32 or golden.shape != (len(sample), len(artifact.manifest.labels)):
        raise InputError(f"{folder / GOLDEN}: is {golden.dtype} {golden.shape}, not a logit per image and class")
    return Bundle(folder, artifact, target, sample, golden)


def with_engine(bundle: Bundle, console: Console) -> Bundle:
    """Return the bundle with the engine of its ONNX file where the target runs one: built here unless it is there."""
    if bundle.target.runtime != "trt":
        return bundle
    artifact = bundle.artifact
    path = bundle.folder / "engines" / f"{artifact.path.stem}.engine"
    built = engine.engine(artifact, bundle.target, path, console, path.with_suffix(".timing"))
    return replace(bundle, artifact=built)


def require_kernels(bundle: Bundle) -> None:
    """Raise UnavailableError where this processor would sum the file's integers wrongly."""
    here, scheme = environment.detect_instruction_set(), bundle.artifact.manifest.scheme
    if (scheme, here) == ("x86-vnni", "x86-avx2"):
        raise UnavailableError(
            f"{bundle.artifact.path.name} is for processors with VNNI; on this one its sums saturate in silence. "
            "Bundle a target with instruction_set: x86-avx2"
        )


def verify(bundle: Bundle) -> Verification:
    """Run the sample here and compare with the golden logits; raises as `measure` does."""
    require_kernels(bundle)
    found = evaluate(bundle.artifact, bundle.target, bundle.sample)
    golden = bundle.golden
    allowed = TOLERANCE[bundle.artifact.manifest.precision] * max(float(np.abs(golden).max()), 1e-6)
    best = np.sort(golden, axis=1)
    margin = best[:, -1] - best[:, -2] if golden.shape[1] > 1 else np.full(len(golden), np.inf)
    changed = found.argmax(1) != golden.argmax(1)
    return Verification(
        images=len(golden),
        agreement=float(1 - changed.mean()),
        max_logit_difference=float(np.abs(found - golden).max()),
        allowed_difference=allowed,
        changed=int(changed.sum()),
        undecided=int((changed & (margin <= 2 * allowed)).sum()),
    )


def recipe_of(tar: Path) -> str | None:
    """Return the name of the recipe that a bundle comes from; raises InputError for what is no bundle."""
    _require_file(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            stream = archive.extractfile(DESCRIPTION)
            recipe = parse_json(stream.read(MOST_JSON_BYTES))["recipe"] if stream else None
    except (tarfile.TarError, EOFError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{tar}: holds no readable {DESCRIPTION}; it was not made by compress bundle") from error
    return str(recipe) if recipe else None


def unpack(tar: Path, folder: Path) -> Bundle:
    """Unpack a bundle into a folder and open it.

    Raises InputError for what is no bundle, for members that are no plain files or would leave the folder, and for more
    than 4 GiB; nothing is written then.
    """
    _require_file(tar)
    try:
        with tarfile.open(tar, "r:") as archive:
            members = archive.getmembers()
            _check(tar, members)
            for member in members:
                stream = archive.extractfile(member)
                assert stream is not None, "a plain file"
                with replacing(folder / member.name) as temporary, temporary.open("wb") as out:
                    while piece := stream.read(1 << 20):
                        out.write(piece)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{tar}: not a tar that can be read ({error}); make the bundle again") from error
    try:
        return load(folder)
    except InputError as error:  # name what the user has, not where it was unpacked
        raise InputError(f"{tar}: {str(error).replace(f'{folder}/', '').removeprefix(f'{folder}: ')}") from error


def _require_file(tar: Path) -> None:
    if not tar.is_file():
        raise InputError(f"{tar}: no such file")


def _check(tar: Path, members: list[tarfile.TarInfo]) -> None:
    for member in members:
        if not member.isfile():
            raise InputError(f"{tar}: {member.name} is no plain file; it was not made by compress bundle")
        try:
            _inside(member.name)
        except InputError as error:
            raise InputError(f"{tar}: {error}") from error
    if sum(member.size for member in members) > MOST_UNPACKED_BYTES:
        raise InputError(f"{tar}: would unpack to more than {MOST_UNPACKED_BYTES >> 30} GiB")
    if DESCRIPTION not in {member.name for member in members}:
        raise InputError(f"{tar}: holds no {DESCRIPTION}; it was not made by compress bundle")


def _inside(name: str) -> str:
    """Return a name that stays inside its folder; raises InputError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[A-Za-z0-9][\w./-]*", name, re.ASCII):
        raise InputError(f"{name!r} is no name of a file in a bundle; it was not made by compress bundle")
    return name


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        content: dict[str, Any] = read_json(path)
        if content["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{path}: schema version {content['schema_version']}, not {SCHEMA_VERSION}; make it again")
        named = {_inside(name) for name in content["files"]}
        needed = {GOLDEN, content["artifact"], f"{content['artifact']}.json", f"{SAMPLE}/images.npy"}
        if needed - named:
            raise InputError(f"{path}: names no sha256 of {sorted(needed - named)[0]}; make the bundle again")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the folder that a bundle was unpacked in") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a bundle's description ({error!r}); make the bundle again") from error
    return content


def require_passed(found: Verification) -> None:
    """Raise CompressError where a verification did not pass."""
    if not found.passed:
        raise CompressError(
            f"the answers here are not those of the bundle: {found.changed} of {found.images} images have another "
            f"top-1, logits differ by {found.max_logit_difference:.3g} where {found.allowed_difference:.3g} is allowed"
        )


def to_json(found: Verification) -> dict[str, Any]:
    """Return a value that JSON can hold."""
    return {**asdict(found), "passed": found.passed}
