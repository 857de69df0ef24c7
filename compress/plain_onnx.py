"""Describe an ONNX classifier that has no manifest."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtimes.artifact import Artifact, InputDtype, Manifest, Precision
from runtimes.errors import InputError
from runtimes.files import sha256_file
from runtimes.lineage import GivenRecord
from runtimes.preprocessing import Preprocessing
from runtimes.session import load
from runtimes.target import Target

if TYPE_CHECKING:
    import onnx

MAX_SIDE = 4096  # of `Preprocessing`
INTEGER_OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class PlainFile:
    """A checked ONNX classifier. sha256, size_bytes: of the file with its external data.

    input_shape: (N, 3, H, W), None for sizes that the file leaves open.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str
    size_bytes: int
    input_dtype: InputDtype
    input_shape: tuple[int | None, int, int | None, int | None]

    @property
    def side(self) -> int | None:
        """Return the side of the images that it takes, None if any do."""
        return self.input_shape[2] or self.input_shape[3]

    @classmethod
    def read(cls, path: Path) -> PlainFile:
        """Read and check a file; raises InputError, with advice, for anything but a classifier of RGB images."""
        # Imported here because they import onnx, which files with a manifest do not need.
        from compress.quantization.onnx_file import external_files, path_in_errors, read_onnx
        from export.standard_form import require_float32_classifier

        with path_in_errors(path):
            model = read_onnx(path)
            values = _inputs(model)
            dtype: InputDtype = "float32"
            if len(values) == 1 and values[0].type.tensor_type.elem_type == 2:  # TensorProto.UINT8
                dtype = "uint8"
            else:
                require_float32_classifier(model)
            shape = _nchw(values[0], dtype)
        files = [path, *(path.parent / name for name in external_files(path))]
        return cls(path, model, _sha256(files), sum(file.stat().st_size for file in files), dtype, shape)

    def artifact(self, preprocessing: Preprocessing) -> Artifact:
        """Return the file as an artifact with numbered classes; run it once to count them.

        Raises InputError if it takes images of another size or does not return a row for each image.
        """
        from compress.quantization.onnx_file import path_in_errors  # these import onnx, see `read`
        from export.head import described as described_head

        sides = self.input_shape[2:]
        if any(side not in (None, preprocessing.crop) for side in sides):
            raise InputError(f"{self.path}: takes images of {self.side} x {self.side} pixels, and the preprocessing "
                             f"crops to {preprocessing.crop}; set --crop {self.side}")  # fmt: skip
        manifest = Manifest(
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            format="onnx",
            precision=_precision(self.model),
            input_name=_inputs(self.model)[0].name,
            input_shape=(self.input_shape[0], 3, preprocessing.height, preprocessing.width),
            output_name=self.model.graph.output[0].name,
            preprocessing=preprocessing,
            labels=(),
            opset=next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), None),
            lineage=(GivenRecord(self.path.name, self.sha256),),
            input_layout="NHWC" if self.input_dtype == "uint8" else "NCHW",
            input_dtype=self.input_dtype,
        )
        columns = _columns(Artifact(self.path, manifest))
        with path_in_errors(self.path):
            labels, output = described_head(self.model, columns)
        return Artifact(self.path, Manifest(**{**vars(manifest), "labels": labels, "output": output}))

    def meaning_of_one_output(self, manifest: Manifest) -> str | None:
        """Say how a single output is read, None for other files; manifest: of `artifact`."""
        from export.head import last_activation  # imports onnx, see `read`

        is_sigmoid = manifest.output == "probabilities" and last_activation(self.model) == "Sigmoid"
        if not is_sigmoid and len(manifest.labels) > 1:
            return None
        return f"its one output is read as the {'probability' if is_sigmoid else 'logit'} of the second of two classes"


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are no constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _nchw(value: onnx.ValueInfoProto, dtype: InputDtype) -> tuple[int | None, int, int | None, int | None]:
    """Return the shape (N, 3, H, W) of an input that is (N, H, W, 3) for uint8."""
    sizes = [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]
    if len(sizes) != 4:
        raise InputError(f"the model's input '{value.name}' has {len(sizes)} dimensions, not 4")
    batch, *rest = sizes
    channels = rest.pop(-1 if dtype == "uint8" else 0)
    if channels not in (3, None):
        raise InputError(f"the model's input '{value.name}' has {channels} channels, not 3; uint8 inputs are "
                         "(N, H, W, 3), float inputs (N, 3, H, W)")  # fmt: skip
    sides = {side for side in rest if side is not None}
    if len(sides) > 1 or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(f"the model takes images of {rest[0]} x {rest[1]} pixels, not a square of at most {MAX_SIDE}")
    return batch, 3, rest[0], rest[1]


def _columns(artifact: Artifact) -> int:
    """Run the file on noise and return its number of outputs."""
    batch, _, height, width = artifact.manifest.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (batch or 2, height, width, 3), np.uint8)
    with closing(load(artifact, Target("local", batch=batch or 1))) as session:
        shape = session.run(artifact.manifest.prepare(pixels)).shape
    if len(shape) != 2 or shape[0] != len(pixels):
        raise InputError(
            f"{artifact.path}: returns {shape} for {len(pixels)} images, not (N, classes); export a classifier with "
            "its head, ending with a Flatten"
        )
    return int(shape[1])


def _precision(model: onnx.ModelProto) -> Precision:
    if any(node.op_type in INTEGER_OPS or node.op_type.startswith("QLinear") for node in model.graph.node):
        return "int8"
    is_half = any(tensor.data_type == 10 for tensor in model.graph.initializer)  # TensorProto.FLOAT16
    return "float16" if is_half else "float32"


def _sha256(files: list[Path]) -> str:
    """Return the sha256 of one file, or that of the sha256 of several."""
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
