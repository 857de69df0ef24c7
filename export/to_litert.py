"""Convert ONNX artifacts to LiteRT (.tflite) with litert-torch, float32 or INT8; weights and scales are unchanged.

litert-torch conflicts with the host's packages, so this runs in a separate environment:

    python -m venv .venv-litert && .venv-litert/bin/pip install -e '.[litert-convert]'
    .venv-litert/bin/python -m export.to_litert runs/mine/artifacts/model-int8-arm64.onnx
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch

from export.onnx_to_torch import OnnxNetwork
from export.parity import compare, require_same
from runtimes import environment, evalset, session
from runtimes.artifact import Artifact
from runtimes.console import escape_unprintable
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import write_bytes
from runtimes.lineage import LitertRecord, Parity, find_record
from runtimes.target import Target

PARITY_IMAGES = 64
# Kernels of two runtimes occasionally round the same integer sum differently, which gives at least 30 dB; a wrong scale
# gives about 0 dB.
MIN_INT8_SQNR_DB = 20.0
Images = npt.NDArray[np.float32]


def to_litert(artifact: Artifact, path: Path, images: Images, batch: int = 1) -> Artifact:
    """Convert an ONNX artifact to a .tflite file of a fixed batch, with its manifest beside it.

    images: float32 (N, C, H, W), at least `batch`, for the comparison of both files. Raises UnavailableError without
    litert-torch, InputError for operators that `export.onnx_to_torch` does not support, CompressError where the logits
    differ by more than rounding.
    """
    if artifact.manifest.format != "onnx":
        raise InputError(f"{artifact.path}: is {artifact.manifest.format}; give an ONNX file")
    if (artifact.manifest.input_dtype, artifact.manifest.output) != ("float32", "logits"):
        raise InputError(f"{artifact.path}: contains normalisation or softmax; convert the file without them")
    if len(images) < batch:
        raise InputError(f"{len(images)} images are too few for batch {batch}; give at least {batch}")
    model = onnx.load(artifact.path)
    write_bytes(
        path, _converted(OnnxNetwork(model).eval(), torch.from_numpy(images[:batch].copy()), _is_quantized(model))
    )
    converted = _described(artifact, path, batch)
    parity = _parity(model, converted, images[: len(images) // batch * batch], batch)
    converted = converted.with_record(LitertRecord(parity))
    converted.save_manifest()
    return converted


def _converted(network: torch.nn.Module, example: torch.Tensor, quantized: bool) -> bytes:
    try:
        import litert_torch
    except ImportError as error:
        raise UnavailableError(
            "converting to LiteRT needs litert-torch, in a separate environment: "
            f"pip install litert-torch ai-edge-litert ({error})"
        ) from error
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        converted = litert_torch.convert(network, (example,), quant_config=_static() if quantized else None)
        converted.export(str(Path(folder) / "model.tflite"))
        return (Path(folder) / "model.tflite").read_bytes()


def _static() -> Any:
    """Return settings with which litert-torch converts Q/DQ pairs to integer operators and quantizes nothing else."""
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    settings = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(settings))


def _is_quantized(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def _described(artifact: Artifact, path: Path, batch: int) -> Artifact:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return artifact.derive(
        path,
        format="tflite",
        input_name=interpreter.get_input_details()[0]["name"],
        input_shape=(batch, *artifact.manifest.input_shape[1:]),
        output_name=interpreter.get_output_details()[0]["name"],
        opset=None,
        session_options={},
        versions=environment.package_versions((*environment.RUNTIME_PACKAGES, "onnx", "torch", "litert-torch")),
    )


def _parity(model: onnx.ModelProto, converted: Artifact, images: Images, batch: int) -> Parity:
    """Compare with the ONNX graph computed without optimizations."""
    expected = _exact_logits(model, images)
    with closing(session.load(converted, Target("parity", runtime="litert", batch=batch))) as opened:
        starts = range(0, len(images), batch)
        logits = np.concatenate([opened.run(images[start : start + batch])[0] for start in starts])
    if not _is_quantized(model):
        return require_same(expected, logits, converted.path.name)
    parity = compare(expected, logits)
    if parity.sqnr_db is not None and not parity.sqnr_db >= MIN_INT8_SQNR_DB:
        raise CompressError(
            f"{converted.path.name}: SQNR against the ONNX file is {parity.sqnr_db:.1f} dB, less than "
            f"{MIN_INT8_SQNR_DB:.0f} dB; the conversion is wrong"
        )
    return parity


def _exact_logits(model: onnx.ModelProto, images: Images) -> Images:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    exact = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensor = exact.get_inputs()[0]
    step = tensor.shape[0] if isinstance(tensor.shape[0], int) else len(images)
    parts = [exact.run(None, {tensor.name: images[start : start + step]})[0] for start in range(0, len(images), step)]
    return np.concatenate(parts)


def _sample_images(artifact: Artifact, folder: Path | None, batch: int) -> Images:
    """Return normalised images of an evaluation set, or of seeded noise."""
    preprocessing, count = artifact.manifest.preprocessing, max(PARITY_IMAGES, batch)
    if folder is None:
        shape = preprocessing.image_shape
        return preprocessing.normalize(np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8))
    images = evalset.load(folder)
    if images.preprocessing != preprocessing:
        raise InputError(f"{folder}: has another preprocessing than {artifact.path.name}")
    return preprocessing.normalize(images.pixels(np.arange(min(count, len(images)))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the artifact given on the command line; return the exit code."""
    parser = argparse.ArgumentParser("export.to_litert", description="Convert an ONNX artifact to LiteRT.")
    parser.add_argument("artifact", type=Path, help="an ONNX file with its manifest beside it")
    parser.add_argument("-o", "--output", type=Path, help="default: the same name with .tflite")
    parser.add_argument("--batch", type=int, default=1, help="images per call, fixed in the .tflite file")
    parser.add_argument("--images", type=Path, help="folder with evalset.json for the comparison; default: noise")
    escape_unprintable()
    options = parser.parse_args(arguments)
    try:
        artifact = Artifact.load(options.artifact)
        images = _sample_images(artifact, options.images, options.batch)
        converted = to_litert(
            artifact, options.output or options.artifact.with_suffix(".tflite"), images, options.batch
        )
    except CompressError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    record = find_record(converted.manifest.lineage, LitertRecord)
    assert record is not None
    parity = record.parity_with_onnx
    same = f"largest difference of an output on {parity.images} images: {parity.max_logit_difference:.2g}"
    if parity.agreement is not None:
        same = f"{parity.agreement:.1%} of {parity.images} images have the ONNX file's top-1 class"
    sys.stdout.write(f"{converted.path}: {converted.manifest.size_bytes} bytes; {same}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
