"""Describe an ONNX file that has no manifest."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.inputs.options import PreprocessingOptions, require_fit
from runtimes.artifact import Artifact, Manifest, Precision
from runtimes.errors import ArtifactError, InputError
from runtimes.files import sha256_file
from runtimes.lineage import GivenRecord
from runtimes.outputs.kinds import Arrays, with_batch_axis
from runtimes.preprocessing import Preprocessing
from runtimes.session import load
from runtimes.target import Target

if TYPE_CHECKING:
    import onnx

    from export.inputs.image_input import ImageInput

INTEGER_OPS = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class PlainFile:
    """A checked ONNX file. sha256, size_bytes: of the file with its external data. image: its input."""

    path: Path
    model: onnx.ModelProto
    sha256: str
    size_bytes: int
    image: ImageInput

    @classmethod
    def read(cls, path: Path) -> PlainFile:
        """Read and check a file; raises InputError, with advice, for anything but a network of images."""
        # Imported here because they import onnx, which files with a manifest do not need.
        from compress.quantization.onnx_file import external_files, path_in_errors, read_onnx
        from export.inputs.image_input import image_input

        with path_in_errors(path):
            model = read_onnx(path)
            image = image_input(model)
        files = [path, *(path.parent / name for name in external_files(path))]
        return cls(path, model, _sha256(files), sum(file.stat().st_size for file in files), image)

    def preprocessing(self, options: PreprocessingOptions) -> Preprocessing:
        """Return the preprocessing of options, completed by what the file says; raises InputError if they differ."""
        from compress.quantization.onnx_file import path_in_errors  # imports onnx, see `read`

        with path_in_errors(self.path):
            return options.for_file(self.image)

    def artifact(self, preprocessing: Preprocessing) -> Artifact:
        """Return the file as an artifact with numbered classes; run it once to learn what it returns.

        Raises InputError if it takes images of another size or does not return a row for each image.
        """
        from compress.quantization.onnx_file import path_in_errors  # these import onnx, see `read`
        from export.head import described as described_head
        from export.head import require_rows

        with path_in_errors(self.path):
            require_fit(self.image, preprocessing)
            if not self.model.graph.output:
                raise InputError("the graph has no outputs")
        height, width, channels = preprocessing.image_shape
        manifest = Manifest(
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            format="onnx",
            precision=_precision(self.model),
            input_name=self.image.name,
            input_shape=(self.image.batch, channels, height, width),
            output_name=self.model.graph.output[0].name,
            more_outputs=tuple(value.name for value in self.model.graph.output[1:]),
            preprocessing=preprocessing,
            labels=(),
            opset=next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), None),
            lineage=(GivenRecord(self.path.name, self.sha256),),
            input_layout=self.image.layout,
            input_dtype=self.image.dtype,
        )
        images, outputs = _outputs_of_noise(Artifact(self.path, manifest))
        with path_in_errors(self.path):
            head = described_head(self.model, outputs, manifest.input_shape[2:])
            require_rows(self.model, head, outputs, images)
        return Artifact(self.path, replace(
            manifest,
            input_shape=(1 if images == 1 else self.image.batch, *manifest.input_shape[1:]),
            labels=head.labels,
            output=head.output,
            kind=head.kind,
        ))  # fmt: skip

    def remark_on_outputs(self, manifest: Manifest) -> str | None:
        """Say how a single output is read, and which outputs do not depend on the images; manifest: of `artifact`."""
        from export.head import last_activation, unchanging_outputs, unchanging_text  # these import onnx, see `read`

        if unchanging := unchanging_outputs(self.model):
            return unchanging_text(unchanging)
        is_sigmoid = manifest.kind == "binary" and last_activation(self.model) == "Sigmoid"
        if not is_sigmoid and (len(manifest.labels) > 1 or manifest.kind != "binary"):
            return None
        return f"its one output is read as the {'probability' if is_sigmoid else 'logit'} of the second of two classes"


def _outputs_of_noise(artifact: Artifact) -> tuple[int, Arrays]:
    """Run the file on noise; return the number of images and the outputs, with the batch axis.

    It is one image if the file leaves the batch open and fails on two.
    """
    batch = artifact.manifest.input_shape[0]
    shape = (batch or 2, *artifact.manifest.preprocessing.image_shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with closing(load(artifact, Target("local", batch=batch or 1))) as session:
        try:
            outputs = session.run(artifact.manifest.prepare(pixels))
        except ArtifactError:
            if batch is not None:
                raise
            pixels = pixels[:1]
            outputs = session.run(artifact.manifest.prepare(pixels))
    return len(pixels), with_batch_axis(outputs, len(pixels))


def _precision(model: onnx.ModelProto) -> Precision:
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        weights = node.op_type == "DequantizeLinear" and node.input[0] in stored  # others may dequantize pixels
        if weights or node.op_type in INTEGER_OPS or node.op_type.startswith("QLinear"):
            return "int8"
    is_half = any(tensor.data_type == 10 for tensor in model.graph.initializer)  # TensorProto.FLOAT16
    return "float16" if is_half else "float32"


def _sha256(files: list[Path]) -> str:
    """Return the sha256 of one file, or that of the sha256 of several."""
    digests = [sha256_file(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
