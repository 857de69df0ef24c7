"""Open model files to compare: artifacts with their manifest, and plain ONNX files of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.plain_onnx import PlainFile
from export.inputs.options import NONE_GIVEN, PreprocessingOptions, described, options_text
from runtimes.artifact import Artifact, Manifest, manifest_path, read_manifest
from runtimes.errors import ArtifactError, InputError
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing


@dataclass(frozen=True)
class Assumptions:
    """Options of a command about files without a manifest. preprocessing: the settings that are given.

    manifest: of another file, whose preprocessing and labels hold for them. labels: file of class names, one per line.
    """

    preprocessing: PreprocessingOptions = NONE_GIVEN
    manifest: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class OpenedFiles:
    """Artifacts in the order of their paths. notes: what was assumed of files without a manifest, and differences."""

    artifacts: list[Artifact]
    notes: list[str]


def open_files(paths: Sequence[Path], assumed: Assumptions, evalset: EvalSet | None, needs_pixels: bool) -> OpenedFiles:
    """Open files to measure or evaluate; an ONNX file needs no manifest beside it.

    evalset: the images, if they are prepared. needs_pixels: whether accuracy is computed, so that the preprocessing
    has to be known; for latency, the size of a model's input is enough. Raises InputError for what contradicts itself
    or can't be known, ArtifactError for a damaged manifest.
    """
    plain = {path: PlainFile.read(path) for path in paths if _is_plain(path)}
    artifacts = {path: Artifact.load(path) for path in paths if path not in plain}
    if not plain and (assumed.preprocessing != NONE_GIVEN or assumed.manifest is not None):
        raise InputError("every file has its own manifest, whose preprocessing holds; remove --manifest and the "
                         "options of the preprocessing")  # fmt: skip
    sources = _Sources(assumed, _reference(assumed), tuple(artifacts.values()), evalset, needs_pixels)
    notes = []
    for path, file in plain.items():
        artifacts[path], note = sources.artifact(file)
        notes += [f"{path.name}: no manifest beside it; {note}"]
    if assumed.labels is not None:
        names = read_labels(assumed.labels)
        artifacts = {path: _labelled(artifact, names, str(assumed.labels)) for path, artifact in artifacts.items()}
    opened = [artifacts[path] for path in paths]
    for artifact in opened:
        if evalset is not None and artifact.path in plain and artifact.manifest.labels != evalset.classes:
            raise InputError(f"{artifact.path}: its classes are not those of the evaluation set; name its outputs, in "
                             "their order, with --labels FILE or --manifest FILE.json")  # fmt: skip
    return OpenedFiles(opened, notes + (_differences(opened) if needs_pixels else []))


@dataclass(frozen=True)
class _Sources:
    """Everything that the preprocessing and classes of a plain file can come from."""

    assumed: Assumptions
    reference: Manifest | None
    others: tuple[Artifact, ...]
    evalset: EvalSet | None
    needs_pixels: bool

    def artifact(self, file: PlainFile) -> tuple[Artifact, str]:
        """Return the file as an artifact, and a note about what is assumed of it."""
        if self.reference is not None and self.reference.sha256 == file.sha256:
            return Artifact(file.path, self.reference), f"{self.assumed.manifest} is its own"
        source, preprocessing = self._preprocessing(file)
        artifact, note = file.artifact(preprocessing), f"preprocessing {source}: {described(preprocessing)}"
        if not self.needs_pixels:
            note = f"measured with images of {preprocessing.height} x {preprocessing.width} pixels"
        remark = file.remark_on_outputs(artifact.manifest)
        note = f"{note}; {remark}" if remark else note
        if self.reference is not None:
            return _labelled(artifact, self.reference.labels, str(self.assumed.manifest)), note
        labels = {other.manifest.labels for other in self.others}
        if self.assumed.labels is None and len(labels) == 1:
            (names,) = labels
            if len(names) == len(artifact.manifest.labels) and names != artifact.manifest.labels:
                return _labelled(
                    artifact, names, self.others[0].path.name
                ), f"{note}; classes of {self.others[0].path.name}"
        return artifact, note

    def _preprocessing(self, file: PlainFile) -> tuple[str, Preprocessing]:
        """Return where a file's preprocessing comes from, and the preprocessing."""
        options = self.assumed.preprocessing
        if options != NONE_GIVEN:
            return "of the options", file.preprocessing(options)
        if self.reference is not None:
            return f"of {self.assumed.manifest}", self.reference.preprocessing
        if self.evalset is not None:
            return "of the evaluation set", self.evalset.preprocessing
        if not self.needs_pixels and None not in file.image.sides:
            return "of any kind", file.preprocessing(options)  # does not change the latency
        known = {other.manifest.preprocessing: other for other in self.others}
        if len(known) > 1:
            one, other = list(known.values())[:2]
            raise InputError(
                f"{file.path}: has no manifest beside it, and {one.path.name} and {other.path.name} have different "
                f"preprocessing; choose with --manifest {manifest_path(one.path)}"
            )
        for preprocessing, other in known.items():
            return f"of {other.path.name}", preprocessing
        if not self.needs_pixels:
            raise InputError(f"{file.path}: takes images of any size; give the size to measure with, as in --crop 224 "
                             "or, of height and width, --crop 48x192")  # fmt: skip
        raise InputError(
            f"{file.path}: has no manifest beside it, so its preprocessing is unknown; give --manifest FILE.json of a "
            f"file with the same preprocessing, or options, as in {options_text(file.preprocessing(options))}"
        )


def read_labels(path: Path) -> tuple[str, ...]:
    """Return class names, one per line; raises InputError for an empty line and for a name that is listed twice."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise InputError(f"--labels {path}: {reason}; give a text file with one class name per line") from error
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if "" in names:
        raise InputError(f"--labels {path}: line {names.index('') + 1} is empty; give one class name per line")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--labels {path}: '{twice[0]}' is listed twice; each output needs its own name")
    return names


def _is_plain(path: Path) -> bool:
    return path.suffix.lower() == ".onnx" and path.is_file() and not manifest_path(path).exists()


def _reference(assumed: Assumptions) -> Manifest | None:
    """Return the manifest of `--manifest`."""
    if assumed.manifest is None:
        return None
    if assumed.preprocessing != NONE_GIVEN:
        raise InputError("--manifest names a preprocessing already; remove it or the options of the preprocessing")
    if not assumed.manifest.is_file():
        raise InputError(
            f"--manifest {assumed.manifest}: no such file; give the path of a manifest, as in int8.onnx.json"
        )
    try:
        return read_manifest(assumed.manifest)
    except ArtifactError as error:
        raise InputError(f"--manifest {error}; give the path of a manifest, as in int8.onnx.json") from error


def _labelled(artifact: Artifact, names: tuple[str, ...], source: str) -> Artifact:
    """Return the artifact with class names in place of its numbers; refuse names that contradict its manifest."""
    labels = artifact.manifest.labels
    if labels == names:
        return artifact
    is_numbered = labels == tuple(str(index) for index in range(len(labels)))
    if not is_numbered:
        differing = next((pair for pair in zip(labels, names, strict=False) if pair[0] != pair[1]), None)
        detail = f"'{differing[0]}' is '{differing[1]}' there" if differing else f"{len(labels)} and {len(names)}"
        raise InputError(f"{artifact.path.name}: its manifest has other classes than {source}: {detail}")
    if len(labels) != len(names) and (len(labels), len(names)) != (1, 2):  # one output can stand for two classes
        raise InputError(f"{artifact.path.name}: has {len(labels)} classes, {source} names {len(names)}")
    return replace(artifact, manifest=replace(artifact.manifest, labels=names))


def _differences(artifacts: list[Artifact]) -> list[str]:
    """Return a line for each file whose preprocessing differs from that of the first."""
    first, *others = artifacts
    return [
        f"{other.path.name}: other preprocessing than {first.path.name}: {described(other.manifest.preprocessing)} "
        f"instead of {described(first.manifest.preprocessing)}"
        for other in others
        if other.manifest.preprocessing != first.manifest.preprocessing
    ]
