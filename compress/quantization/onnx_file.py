"""Quantize a float32 ONNX file of another exporter to an INT8 artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from compress.images import oddities
from compress.images.folders import FolderWalk
from compress.images.oddities import oddity
from compress.images.samples import Sample, write_evalset
from compress.quantization.config import Quantize
from compress.quantization.int8 import make_int8
from compress.quantization.ort_graph import OrtGraph
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import scheme_named
from export.head import described
from export.standard_form import standard_form
from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.console import Console
from runtimes.errors import InputError
from runtimes.files import sha256_file, write_bytes
from runtimes.images import UnreadableImageError, content, decode, extensions
from runtimes.lineage import GivenRecord
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

MIN_READABLE_SHARE = 0.99  # of the calibration images
SHOWN = 20  # unreadable images on the console


@dataclass(frozen=True)
class FileRequest:
    """An ONNX classifier to quantize, with calibration images from a folder.

    model: path of the float32 ONNX file. calibration: folder of images. target: name of a scheme, or auto for that of
    this machine. out: path of the INT8 file to write.
    """

    model: Path
    calibration: Path
    target: str
    preprocessing: Preprocessing
    settings: Quantize
    out: Path


def quantize_file(request: FileRequest, console: Console, cache: Path | None) -> Artifact:
    """Quantize an ONNX classifier and write it, with its manifest, to `request.out`.

    cache: folder for calibrated ranges, None to calibrate each time. Raises InputError for a file or folder that can't
    be used.
    """
    scheme, model_path, preprocessing = scheme_named(request.target), request.model, request.preprocessing
    if request.out.resolve() == model_path.resolve():
        raise InputError(f"{request.out}: is the model to quantize; choose another file with -o")
    samples = _samples(request.calibration, request.settings.calibration_images, console)
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        with path_in_errors(model_path):
            model = standard_form(read_onnx(model_path))
            require_side(model, preprocessing.side, model_path)
            float32 = _float32(Path(folder) / "float32.onnx", model, preprocessing, model_path)
        readable = _readable(samples, console)
        images = write_evalset(
            Path(folder) / "calibration", readable, float32.manifest.labels, preprocessing,
            console,
        )  # fmt: skip
        here = Target("local", batch=float32.manifest.input_shape[0] or 1)
        with path_in_errors(model_path):
            quantization = QuantizationRequest(images, scheme, request.settings, console, cache)
            return make_int8(float32, here, quantization, request.out)


@contextmanager
def path_in_errors(model_path: Path) -> Iterator[None]:
    """Add the model's path to errors about the model."""
    try:
        yield
    except InputError as error:
        raise error if str(model_path) in str(error) else InputError(f"{model_path}: {error}") from error
    except shape_inference.InferenceError as error:
        raise InputError(f"{model_path}: declares shapes that it does not have ({_first_line(error)})") from error
    except UnicodeDecodeError as error:  # protobuf decodes names only when they are read
        raise InputError(f"{model_path}: not an ONNX file ({error})") from error


def _samples(folder: Path, count: int, console: Console) -> tuple[Sample, ...]:
    """Return at most `count` images of a folder and its subfolders, spread evenly over the sorted names.

    The files that are left out are counted on the console.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set --calibration to a folder of images")
    walk = FolderWalk(folder)
    paths = list(walk.all_images())
    for files in walk.left_out.all():
        console.say(files.line())
    if not paths:
        raise InputError(f"{folder}: has no images ({', '.join(sorted(extensions()))})")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int))
    if len(chosen) < len(paths):
        console.say(f"calibration images: {len(chosen)} of {len(paths)}, evenly spaced; --images sets their number")
    return tuple(Sample(walk.name(paths[index]), Path(paths[index]), None) for index in chosen)


def _readable(samples: tuple[Sample, ...], console: Console) -> tuple[Sample, ...]:
    """Return the samples that can be decoded; name the others, and odd images, on the console."""
    readable, odd = [], []
    errors: list[str] = []
    for sample in samples:
        try:
            decoded = decode(sample.source)
            readable.append(sample)
            odd += [(sample.name, name)] if (name := oddity(content(sample.source), decoded)) else []
        except UnreadableImageError as error:
            if len(errors) < SHOWN:
                console.say(f"set aside: {error}")
            errors.append(str(error))
    if len(errors) > SHOWN:
        console.say(f"set aside: {len(errors) - SHOWN} more images")
    for line in oddities.lines(odd):
        console.say(f"doubtful: {line}")
    if not readable or len(readable) < MIN_READABLE_SHARE * len(samples) - 1:
        raise InputError(f"{len(errors)} of {len(samples)} calibration images cannot be read, for example {errors[0]}")
    return tuple(readable)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file; raises InputError for anything else."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of an ONNX file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        missing = [name for name in external_files(path) if not (path.parent / name).is_file()]
        if missing:
            raise InputError(f"{path}: its weights are in {missing[0]}, which is missing; copy that file beside it")
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: not an ONNX file ({_first_line(error)})") from error
    return model


def external_files(path: Path) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its weights, none if it holds them itself."""
    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def require_side(model: onnx.ModelProto, crop: int, path: Path) -> None:
    """Raise InputError if the model takes images of another size."""
    sides = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]]
    if any(side not in (0, crop) for side in sides):
        raise InputError(f"{path}: the model takes {sides[0]} x {sides[1]} pixels; set --crop {sides[0]}")


def _float32(path: Path, model: onnx.ModelProto, preprocessing: Preprocessing, source: Path) -> Artifact:
    write_bytes(path, model.SerializeToString())
    graph_input = model.graph.input[0]
    batch = graph_input.type.tensor_type.shape.dim[0].dim_value or None
    side = preprocessing.side
    graph = OrtGraph(model)
    noise = np.random.default_rng(0).normal(size=(batch or 1, 3, side, side)).astype(np.float32)
    shape = graph.run({graph_input.name: noise})[graph.outputs[0]].shape
    if len(shape) != 2 or len(noise) != shape[0]:
        raise InputError(f"{source}: returns {shape} for {len(noise)} images, not (N, classes); end it with a Flatten")
    labels, output = described(model, shape[1])
    return Artifact(path, Manifest(
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        format="onnx",
        precision="float32",
        input_name=graph_input.name,
        input_shape=(batch, 3, side, side),
        output_name=model.graph.output[0].name,
        preprocessing=preprocessing,
        labels=labels,
        output=output,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        lineage=(GivenRecord(source.name, sha256_file(source)),),
        versions=environment.package_versions(),
    ))  # fmt: skip
