"""Export PyTorch networks to float32 ONNX: standard operators, BatchNorm folded, no paths of this machine."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from export.standard_form import strip, use_global_average_pool
from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import CompressError
from runtimes.files import sha256_file, write_bytes
from runtimes.lineage import Record
from runtimes.preprocessing import Preprocessing

INPUT_NAME, OUTPUT_NAME = "images", "logits"
TRACED_BATCH = 2  # the exporter treats a batch of 1 as a constant


@dataclass(frozen=True)
class OnnxFile:
    """A file written by `to_onnx`. input_shape: (N, C, H, W); N is None for a dynamic batch."""

    path: Path
    opset: int
    input_shape: tuple[int | None, int, int, int]

    def artifact(
        self,
        preprocessing: Preprocessing,
        labels: tuple[str, ...],
        recipe: str | None = None,
        lineage: tuple[Record, ...] = (),
    ) -> Artifact:
        """Return the file as a float32 artifact; its manifest is not written."""
        return Artifact(self.path, Manifest(
            sha256=sha256_file(self.path), size_bytes=self.path.stat().st_size, format="onnx", precision="float32",
            input_name=INPUT_NAME, input_shape=self.input_shape, output_name=OUTPUT_NAME, preprocessing=preprocessing,
            labels=labels, opset=self.opset, recipe=recipe, lineage=lineage, versions=environment.package_versions(),
        ))  # fmt: skip


def to_onnx(
    network: nn.Module, path: Path, image: int | tuple[int, int, int], opset: int, batch: int | None
) -> OnnxFile:
    """Export an eval-mode network that maps (N, C, H, W) to (N, classes), both float32; batch None is dynamic.

    image: its shape (C, H, W), or the side of a square RGB image. Raises CompressError if the exporter used another
    opset or domain, or left a BatchNorm after a layer. The outputs are not compared; see `export.parity`.
    """
    shape = (3, image, image) if isinstance(image, int) else image
    model = _export(network.eval().cpu(), shape, opset, batch)
    strip(model)
    use_global_average_pool(model)
    _check(model, opset)
    write_bytes(path, model.SerializeToString())
    return OnnxFile(path, opset, (batch, *shape))


def _export(network: nn.Module, image: tuple[int, int, int], opset: int, batch: int | None) -> onnx.ModelProto:
    example = torch.zeros(batch or TRACED_BATCH, *image)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    progress = contextlib.redirect_stdout(io.StringIO())  # the exporter prints it
    with warnings.catch_warnings(), progress, _out_of_place(network):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False,
            input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
        )  # fmt: skip
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """Let activations return new tensors: the exporter takes a third longer for those that change their input."""
    in_place: list[Any] = [
        module for module in network.modules() if getattr(module, "inplace", None) is True
    ]  # no common class
    for module in in_place:
        module.inplace = False
    try:
        yield
    finally:
        for module in in_place:
            module.inplace = True


def _check(model: onnx.ModelProto, opset: int) -> None:
    onnx.checker.check_model(model, full_check=True)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    used = {node.domain or "ai.onnx" for node in model.graph.node}
    if used != {"ai.onnx"}:
        raise CompressError(f"the exported graph has operators of {', '.join(sorted(used))}; only ai.onnx is supported")
    written = opsets["ai.onnx"]
    if written != opset:
        raise CompressError(f"the exporter wrote opset {written}, not {opset}; set export.opset to {written}")
    keep = [entry for entry in model.opset_import if (entry.domain or "ai.onnx") == "ai.onnx"]
    del model.opset_import[:]
    model.opset_import.extend(keep)
    layers = {name for node in model.graph.node if node.op_type in ("Conv", "Gemm") for name in node.output}
    # After a Concat, as in DenseNet, there is no layer to fold it into.
    unfolded = sum(node.op_type == "BatchNormalization" and node.input[0] in layers for node in model.graph.node)
    if unfolded:
        raise CompressError(f"{unfolded} BatchNormalization nodes were not folded into convolutions")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise CompressError(f"the network's weights contain NaN or infinity (in {tensor.name}); train it again")
