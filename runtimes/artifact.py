"""An artifact: an exported model file and the manifest beside it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from runtimes.errors import ArtifactError
from runtimes.files import read_json, sha256_file, write_json
from runtimes.lineage import Record, read_lineage
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
    """Everything that a board must know of a model file, and everything that identifies how it was made.

    input_shape: (N, 3, H, W), N is None where the batch is dynamic. The input is RGB: normalised float32 NCHW, or uint8
    NHWC where the normalisation is in the file. output: what the file gives, (N, classes) float32.
    session_options: keys and values that the runtime's session needs so that the answers are right.
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
    schema_version: int = SCHEMA_VERSION

    @property
    def dynamic_batch(self) -> bool:
        """Whether any batch size is accepted."""
        return self.input_shape[0] is None

    @property
    def file_shape(self) -> tuple[int | None, int, int, int]:
        """The shape of what the file takes, in its own layout."""
        batch, channels, height, width = self.input_shape
        return (batch, channels, height, width) if self.input_layout == "NCHW" else (batch, height, width, channels)

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Turn uint8 (N, H, W, 3) RGB of the right size into what the file takes."""
        return pixels if self.input_dtype == "uint8" else self.preprocessing.normalize(pixels)

    def logits(self, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn what the file gives into logits; of probabilities these are the logarithms."""
        return answers if self.output == "logits" else np.log(np.maximum(answers, SMALLEST_PROBABILITY))

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON can hold."""
        return {**asdict(replace(self, lineage=())), "lineage": [record.to_json() for record in self.lineage]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Manifest:
        """Rebuild from JSON; raises KeyError, TypeError or ValueError for fields that don't fit."""
        _check_fields(fields)
        return cls(
            **{
                **fields,
                "preprocessing": Preprocessing.from_json(fields["preprocessing"]),
                "input_shape": tuple(fields["input_shape"]),
                "labels": tuple(fields["labels"]),
                "lineage": read_lineage(fields["lineage"]),
            }
        )


@dataclass(frozen=True)
class Artifact:
    """A model file whose bytes are the ones that its manifest names."""

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
        """Read a model file and its manifest and compare the sha256; raises ArtifactError where they don't fit."""
        for needed in (path, manifest_path(path)):
            if not needed.is_file():
                raise ArtifactError(f"{needed}: no such file; an artifact is a model file with its manifest beside it")
        manifest = _read_manifest(manifest_path(path))
        found = sha256_file(path)
        if found != manifest.sha256:
            raise ArtifactError(
                f"{path}: sha256 is {found[:12]}…, its manifest says {manifest.sha256[:12]}…; export it again"
            )
        if path.stat().st_size != manifest.size_bytes:
            raise ArtifactError(f"{path}: has {path.stat().st_size} bytes, not {manifest.size_bytes}; export it again")
        return cls(path, manifest)


def manifest_path(path: Path) -> Path:
    """Return where the manifest of the model file `path` stands."""
    return path.with_name(path.name + ".json")


def _read_manifest(path: Path) -> Manifest:
    try:
        fields = read_json(path)
        version = fields["schema_version"]
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path}: schema version {version}, this toolkit reads {SCHEMA_VERSION}; export it again"
            )
        return Manifest.from_json(fields)
    except KeyError as error:
        raise ArtifactError(f"{path}: not a manifest (it has no {error}); export the model again") from error
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not a manifest ({error}); export the model again") from error


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise ValueError for a field whose value this toolkit could only misunderstand."""
    choices = {
        "format": Format,
        "precision": Precision,
        "input_layout": InputLayout,
        "input_dtype": InputDtype,
    }
    for name, known in choices.items():
        if fields[name] not in get_args(known):
            raise ValueError(f"{name} is {fields[name]!r}, not one of {', '.join(get_args(known))}")
    if fields.get("output", "logits") not in get_args(Output):  # manifests of older versions don't have it
        raise ValueError(f"output is {fields['output']!r}, not one of {', '.join(get_args(Output))}")
    if (fields["input_layout"], fields["input_dtype"]) not in (("NCHW", "float32"), ("NHWC", "uint8")):
        raise ValueError(f"input is {fields['input_dtype']} {fields['input_layout']}, not float32 NCHW or uint8 NHWC")
    if not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise ValueError("sha256 is not 64 hexadecimal digits")
    batch, *rest = fields["input_shape"]
    if (batch is not None and (type(batch) is not int or batch < 1)) or len(rest) != 3 or rest[0] != 3:
        raise ValueError(f"input_shape is {fields['input_shape']}, not [batch or null, 3, height, width]")
    if not all(type(side) is int and side > 0 for side in rest):
        raise ValueError(f"input_shape is {fields['input_shape']}, not of positive whole numbers")
    labels, options = fields["labels"], fields["session_options"]
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of texts")
    if not isinstance(options, dict) or not all(isinstance(text, str) for pair in options.items() for text in pair):
        raise ValueError("session_options are not texts")
