"""Artifacts: a model file with the manifest beside it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from runtimes.errors import ArtifactError
from runtimes.files import Json, read_json, read_object, sha256_file, write_json
from runtimes.lineage import Record, read_lineage
from runtimes.outputs.kinds import CLASSIFIERS, OutputKind
from runtimes.preprocessing import Preprocessing

SCHEMA_VERSION = 1
SMALLEST_PROBABILITY = np.float32(1e-30)
Format = Literal["onnx", "trt", "tflite", "fake"]
Precision = Literal["float32", "float16", "int8"]
InputLayout = Literal["NCHW", "NHWC"]
InputDtype = Literal["float32", "uint8"]
Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Manifest:
    """Description of a model file: its bytes, input, output, preprocessing and labels, and how it was made.

    input_shape: (N, C, H, W), whatever the layout; N is None for a dynamic batch. The input is normalised float32, or
    uint8 pixels where the file normalises. kind: meaning of the outputs, see `runtimes.outputs.kinds`. more_outputs:
    names of those after the first. output: logits or probabilities, of a classifier float32 (N, classes), or (N, 1) of
    the second of two classes (a sigmoid). labels: empty for other kinds. A single label means that the output is no
    class: neither accuracy nor agreement apply.
    session_options: options that the runtime's session needs for correct results.
    scheme: name of the quantization scheme, None for float32.
    lineage: the steps that made the file, oldest first.
    """

    sha256: str
    size_bytes: int
    format: Format
    precision: Precision
    input_name: str
    input_shape: tuple[int | None, int, int, int]
    output_name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    opset: int | None = None
    scheme: str | None = None
    session_options: dict[str, str] = field(default_factory=dict)
    recipe: str | None = None
    lineage: tuple[Record, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    input_layout: InputLayout = "NCHW"
    input_dtype: InputDtype = "float32"
    output: Output = "logits"
    kind: OutputKind = "classes"
    more_outputs: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def dynamic_batch(self) -> bool:
        """True if the file accepts any batch size."""
        return self.input_shape[0] is None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs, in the file's order."""
        return (self.output_name, *self.more_outputs)

    @property
    def is_classifier(self) -> bool:
        """Return whether the output has at least two classes, so that accuracy and agreement apply."""
        return self.kind in CLASSIFIERS and len(self.labels) > 1

    @property
    def threshold(self) -> float:
        """Value above which one output stands for the second of two classes, or a pixel of a mask for the object."""
        return 0.5 if self.output == "probabilities" else 0.0

    @property
    def file_shape(self) -> tuple[int | None, int, int, int]:
        """Shape of the input in the file's own layout."""
        batch, channels, height, width = self.input_shape
        return (batch, channels, height, width) if self.input_layout == "NCHW" else (batch, height, width, channels)

    def takes(self, shape: list[int | None]) -> bool:
        """Return whether the file's input has that shape, None for a size that the file leaves open.

        An open size takes images of this manifest's size.
        """
        return len(shape) == 4 and all(size in (None, own) for size, own in zip(shape, self.file_shape, strict=True))

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Convert uint8 (N, H, W, C) of the right size to the file's input, C-contiguous."""
        if self.input_dtype == "uint8":
            return np.ascontiguousarray(pixels if self.input_layout == "NHWC" else pixels.transpose(0, 3, 1, 2))
        images = self.preprocessing.normalize(pixels)
        return images if self.input_layout == "NCHW" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))

    def logits(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert a classifier's output to logits (N, classes): of probabilities, return the logarithms."""
        outputs = outputs.reshape(len(outputs), -1)  # from (N,) and (N, classes, 1, 1), too
        if outputs.shape[1] < len(self.labels):  # one output for two classes
            outputs = two_columns(outputs, self.output)
        return outputs if self.output == "logits" else np.log(np.maximum(outputs, SMALLEST_PROBABILITY))

    def fits(self, outputs: npt.NDArray[Any], images: int) -> bool:
        """Return whether a classifier's output has a value of each image for each class, or one for two classes."""
        columns = {len(self.labels), 1 if len(self.labels) == 2 else len(self.labels)}
        return outputs.shape[:1] == (images,) and outputs.size in {images * count for count in columns}

    def to_json(self) -> Json:
        """Return a value that JSON can hold."""
        return {**asdict(replace(self, lineage=())), "lineage": [record.to_json() for record in self.lineage]}

    @classmethod
    def from_json(cls, fields: Json) -> Manifest:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for missing, unknown or wrong fields."""
        _check_fields(fields)
        return replace(read_object(cls, {**fields, "lineage": ()}), lineage=read_lineage(fields["lineage"]))


def two_columns(outputs: npt.NDArray[np.float32], output: Output) -> npt.NDArray[np.float32]:
    """Return the (N, 2) logits or probabilities of two classes from those (N, 1) of the second one.

    The softmax of [0, z] is [1 - sigmoid(z), sigmoid(z)].
    """
    first = np.zeros_like(outputs) if output == "logits" else 1 - outputs
    return np.concatenate([first, outputs], axis=1)


@dataclass(frozen=True)
class Artifact:
    """A model file with its manifest, whose sha256 is that of the file."""

    path: Path
    manifest: Manifest

    def derive(self, path: Path, record: Record | None = None, **changes: Any) -> Artifact:
        """Return the artifact of another file, which was made from this one; its manifest is not written.

        Its manifest is this one's with the sha256 and size of `path`, the fields `changes`, and `record` appended to
        the lineage.
        """
        content = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size, **changes}
        derived = Artifact(path, replace(self.manifest, **content))
        return derived if record is None else derived.with_record(record)

    def with_record(self, record: Record) -> Artifact:
        """Return the same file with a record appended to its manifest's lineage; the manifest is not written."""
        return replace(self, manifest=replace(self.manifest, lineage=(*self.manifest.lineage, record)))

    def save_manifest(self) -> None:
        """Write the manifest beside the file as `<file>.json`."""
        write_json(manifest_path(self.path), self.manifest.to_json())

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Read a model file's manifest and compare sha256 and size; raises ArtifactError where they differ."""
        for required, cure in ((path, ""), (manifest_path(path), "; a model file needs its manifest beside it")):
            if required.is_dir():
                raise ArtifactError(f"{required}: is a folder; give the path of a model file")
            if not required.is_file():
                raise ArtifactError(f"{required}: no such file{cure}")
        manifest = read_manifest(manifest_path(path))
        sha256 = sha256_file(path)
        if sha256 != manifest.sha256:
            raise ArtifactError(
                f"{path}: sha256 is {sha256[:12]}…, its manifest says {manifest.sha256[:12]}…; export it again"
            )
        if path.stat().st_size != manifest.size_bytes:
            raise ArtifactError(f"{path}: has {path.stat().st_size} bytes, not {manifest.size_bytes}; export it again")
        return cls(path, manifest)


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of the model file `path`."""
    return path.with_name(path.name + ".json")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest by its own path, without the file that it describes; raises ArtifactError where it is none."""
    try:
        fields = read_json(path)
        version = fields["schema_version"]
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path}: schema version {version}, this version reads {SCHEMA_VERSION}; export it again"
            )
        return Manifest.from_json(fields)
    except KeyError as error:
        raise ArtifactError(f"{path}: not a manifest (it has no {error}); export the model again") from error
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not a manifest ({error}); export the model again") from error


def _check_fields(fields: Json) -> None:
    """Raise ValueError for a field whose value this version cannot use."""
    choices = {
        "format": Format,
        "precision": Precision,
        "input_layout": InputLayout,
        "input_dtype": InputDtype,
    }
    for name, known in choices.items():
        if fields[name] not in get_args(known):
            raise ValueError(f"{name} is {fields[name]!r}, not one of {', '.join(get_args(known))}")
    for name, known in (("output", Output), ("kind", OutputKind)):  # absent from manifests of older versions
        if name in fields and fields[name] not in get_args(known):
            raise ValueError(f"{name} is {fields[name]!r}, not one of {', '.join(get_args(known))}")
    if not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise ValueError("sha256 is not 64 hexadecimal digits")
    batch, *rest = fields["input_shape"]
    if (batch is not None and (type(batch) is not int or batch < 1)) or len(rest) != 3:
        raise ValueError(f"input_shape is {fields['input_shape']}, not [batch or null, channels, height, width]")
    if not all(type(side) is int and side > 0 for side in rest):
        raise ValueError(f"input_shape is {fields['input_shape']}, not of positive integers")
    channels = len(fields["preprocessing"]["mean"])
    if rest[0] != channels:
        raise ValueError(f"input_shape is {fields['input_shape']}, and the preprocessing gives {channels} channels")
    labels, options = fields["labels"], fields["session_options"]
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of strings")
    if not isinstance(options, dict) or not all(isinstance(text, str) for pair in options.items() for text in pair):
        raise ValueError("session_options are not strings")
