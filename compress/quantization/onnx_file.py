"""Quantize a float32 ONNX file of another exporter to an INT8 artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
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
from compress.quantization.ort_graph import OrtGraph, require_separate_images, runs_on_single_images_only
from compress.quantization.request import QuantizationRequest
from compress.quantization.schemes import scheme_named
from export.head import compared_tensors, described, require_rows, unchanging_outputs, unchanging_text
from export.inputs.as_float32 import all_tensors, other_float, to_float32
from export.inputs.channels_first import fix_batch, take_channels_first, take_own_input
from export.inputs.image_input import ImageInput, image_input
from export.inputs.options import NONE_GIVEN, PreprocessingOptions, raw_pixels
from export.inputs.options import described as preprocessing_text
from export.rewrites.constants import fold_dequantized_weights
from export.rewrites.spelling import write_usual_spelling
from export.standard_form import CannotLoadError, declare_ranks, inlined, open_sizes, sort_nodes, standard_form
from export.subgraph import with_outputs
from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.console import Console
from runtimes.errors import CompressError, InputError
from runtimes.files import sha256_file, write_bytes
from runtimes.images import UnreadableImageError, content, decode, extensions
from runtimes.lineage import GivenRecord
from runtimes.outputs.kinds import with_batch_axis
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

MAX_BYTES = 2**31 - 1  # of a message of protobuf
NEWEST_OPSET = 27  # in which ONNX Runtime 1.32 has QuantizeLinear
MIN_READABLE_SHARE = 0.99  # of the calibration images
SHOWN = 20  # unreadable images on the console


@dataclass(frozen=True)
class FileRequest:
    """An ONNX classifier to quantize, with calibration images.

    model: path of the float32 ONNX file. calibration: folder of images, of .npy files for a network that takes arrays;
    or the images, of which .npy files may be mixed with others.
    target: name of a scheme, or auto for that of this machine. preprocessing: the settings that are given. out: path of
    the INT8 file to write.
    """

    model: Path
    calibration: Path | tuple[Sample, ...]
    target: str
    preprocessing: PreprocessingOptions
    settings: Quantize
    out: Path


def quantize_file(request: FileRequest, console: Console, cache: Path | None) -> Artifact:
    """Quantize an ONNX classifier and write it, with its manifest, to `request.out`.

    cache: folder for calibrated ranges, None to calibrate each time. Raises InputError for a file or folder that can't
    be used.
    """
    scheme = scheme_named(request.target)
    if request.out.resolve() == request.model.resolve():
        raise InputError(f"{request.out}: is the model to quantize; choose another file with -o")
    with tempfile.TemporaryDirectory(prefix="compress-") as name:
        folder = Path(name)
        with path_in_errors(request.model):
            network = _read(request, console)
            float32 = _float32(folder / request.model.name, network, request.model)
            if unchanging := unchanging_outputs(network.model):
                console.say(f"{request.model.name}: {unchanging_text(unchanging)}")
        samples = _samples(request, network.preprocessing, console)
        images = write_evalset(
            folder / "calibration", samples, float32.manifest.labels, float32.manifest.preprocessing, console
        )
        here = Target("local", batch=float32.manifest.input_shape[0] or 1)
        with path_in_errors(request.model, float32.path):
            quantization = QuantizationRequest(images, scheme, request.settings, console, cache)
            return _with_own_input(make_int8(float32, here, quantization, request.out), network)


@dataclass(frozen=True)
class _Network:
    """A network in standard form, which takes normalised float32 (N, C, H, W), or pixels in float32 if its file takes
    uint8. image: input of its file. preprocessing: of its file.
    """

    model: onnx.ModelProto
    image: ImageInput
    preprocessing: Preprocessing


def _read(request: FileRequest, console: Console) -> _Network:
    """Read the file; say which preprocessing and conversions are chosen where the request leaves them open."""
    model = read_onnx(request.model)
    require_opset(model, NEWEST_OPSET, request.model)
    if kind := other_float(model):
        console.say(f"{request.model.name}: its {kind} tensors are converted to float32")
        to_float32(model)
        require_writable(request.model, model.ByteSize())
    image = image_input(model)
    preprocessing = request.preprocessing.for_file(image)
    if None in vars(request.preprocessing).values():
        by_default = " by default" if request.preprocessing == NONE_GIVEN else ""
        console.say(f"preprocessing{by_default}: {preprocessing_text(preprocessing)}")
    take_channels_first(model, image, preprocessing)
    model = inlined(model)
    if fold_dequantized_weights(model):
        console.say(f"{request.model.name}: its integer weights are converted to float32")
        require_writable(request.model, model.ByteSize())
    try:
        standard = standard_form(model)
        if runs_on_single_images_only(standard):
            console.say(f"{request.model.name}: runs on one image at a time only, so its batch is fixed at 1")
            fix_batch(standard)
        return _Network(standard, image, preprocessing)
    except CannotLoadError as error:
        if None not in image.sides:
            raise
        raise InputError(f"{error}; it leaves height or width open: set --crop to a size that it was trained for, "
                         f"instead of {preprocessing.crop_text}") from error  # fmt: skip


def _with_own_input(int8: Artifact, network: _Network) -> Artifact:
    """Let the INT8 file take what the float32 file takes: its layout, and pixels if it takes uint8."""
    image = network.image
    if (image.layout, image.dtype) == ("NCHW", "float32"):
        return int8
    model = onnx.load(int8.path)
    take_own_input(model, image)
    write_bytes(int8.path, model.SerializeToString())
    finished = int8.derive(
        int8.path, input_layout=image.layout, input_dtype=image.dtype, preprocessing=network.preprocessing
    )
    finished.save_manifest()
    return finished


@contextmanager
def path_in_errors(model_path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Add the model's path to errors about the model, in place of that of a temporary copy."""
    try:
        yield
    except CompressError as error:
        if temporary is not None and str(temporary) in str(error):
            raise type(error)(str(error).replace(str(temporary), str(model_path))) from error
        if not isinstance(error, InputError):
            raise
        raise error if str(model_path) in str(error) else InputError(f"{model_path}: {error}") from error
    except shape_inference.InferenceError as error:
        raise InputError(f"{model_path}: declares shapes that it does not have ({_first_line(error)})") from error
    except UnicodeDecodeError as error:  # protobuf decodes names only when they are read
        raise InputError(f"{model_path}: not an ONNX file ({error})") from error


def _samples(request: FileRequest, preprocessing: Preprocessing, console: Console) -> tuple[Sample, ...]:
    """Return the calibration images, spread evenly over the sorted names; say which cannot be read or look odd."""
    found, count = _found(request.calibration, preprocessing, console), request.settings.calibration_images
    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
    if len(chosen) < len(found):
        console.say(f"calibration images: {len(chosen)} of {len(found)}, evenly spaced; --images sets their number")
    return _readable(tuple(found[index] for index in chosen), console)


def _found(calibration: Path | tuple[Sample, ...], preprocessing: Preprocessing, console: Console) -> Sequence[Sample]:
    """Return all calibration images."""
    if isinstance(calibration, tuple):
        return calibration
    if not calibration.is_dir():
        raise InputError(f"{calibration}: no such folder; set --calibration to a folder of images")
    return _arrays(calibration, preprocessing) if preprocessing.channels == "array" else _images(calibration, console)


def _images(folder: Path, console: Console) -> list[Sample]:
    """Return all images of a folder and its subfolders; count the files that are left out on the console."""
    walk = FolderWalk(folder)
    samples = [Sample(walk.name(path), Path(path), None) for path in walk.all_images()]
    for files in walk.left_out.all():
        console.say(files.line())
    if not samples:
        raise InputError(f"{folder}: has no images ({', '.join(sorted(extensions()))})")
    return samples


def _arrays(folder: Path, preprocessing: Preprocessing) -> list[Sample]:
    """Return all .npy files of a folder and its subfolders."""
    samples = [Sample(str(path.relative_to(folder)), path, None) for path in sorted(folder.rglob("*.npy"))]
    if not samples:
        count = preprocessing.channel_count
        raise InputError(f"{folder}: has no .npy files; images of {count} channels are arrays: save each as uint8 "
                         f"(height, width, {count})")  # fmt: skip
    return samples


def _readable(samples: tuple[Sample, ...], console: Console) -> tuple[Sample, ...]:
    """Return the samples that can be decoded; name the others, and odd images, on the console."""
    readable, odd = [], []
    errors: list[str] = []
    for sample in samples:
        if isinstance(sample.source, Path) and sample.source.suffix == ".npy":
            readable.append(sample)  # read once only, when it is prepared
            continue
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
        require_writable(path, path.stat().st_size)
        files = [path.parent / name for name in external_files(path)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{path}: its weights are in {missing[0]}, which is missing; copy that file beside it")
        require_writable(path, sum(file.stat().st_size for file in files))
        model = _loaded(path)
        require_opset(model, onnx.defs.onnx_opset_version(), path)
        model.ir_version = min(model.ir_version, onnx.IR_VERSION)  # newer files hold the same operators
        _require_tensors(model, path)
        write_usual_spelling(model)
        sort_nodes(model.graph)
        open_sizes(model.graph)
        declare_ranks(model)  # ONNX Runtime does not need them
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        if "is deprecated in domain_version" in str(error):
            raise InputError(f"{path}: has an operator that its opset no longer has ({_first_line(error)}); "
                             "export it with another opset") from error  # fmt: skip
        raise InputError(f"{path}: not an ONNX file ({_first_line(error)})") from error
    return model


def _require_tensors(model: onnx.ModelProto, path: Path) -> None:
    """Raise InputError for an output that is a sequence or a map, as of scikit-learn's converter."""
    for value in model.graph.output:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise InputError(f"{path}: its output '{value.name}' is no tensor; export it with tensors as outputs, in "
                             "skl2onnx with options={'zipmap': False}")  # fmt: skip


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except ValueError as error:  # offset or length of external data
        raise InputError(f"{path}: its file of weights is damaged ({_first_line(error)}); copy or export both "
                         "again") from error  # fmt: skip


def require_writable(path: Path, size_bytes: int) -> None:
    """Raise InputError for a network that is too large for one ONNX file in float32."""
    if size_bytes >= MAX_BYTES:
        raise InputError(f"{path}: has {size_bytes / 1e9:.1f} GB of weights in float32, and an ONNX file holds at most "
                         "2.1 GB; give a smaller network")  # fmt: skip


def require_opset(model: onnx.ModelProto, newest: int, path: Path) -> None:
    """Raise InputError for a newer opset than the installed packages support."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), newest)
    if opset > newest:
        raise InputError(f"{path}: has opset {opset}, and the installed packages support at most {newest}; "
                         f"export it with opset {newest} or older")  # fmt: skip


def external_files(path: Path) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its weights, none if it holds them itself."""
    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in all_tensors(model.graph) for entry in tensor.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _float32(path: Path, network: _Network, source: Path) -> Artifact:
    """Write a network in standard form and return its artifact; it is run once to learn what it returns."""
    model = network.model
    preprocessing = raw_pixels(network.preprocessing) if network.image.dtype == "uint8" else network.preprocessing
    write_bytes(path, model.SerializeToString())
    graph_input = model.graph.input[0]
    batch = graph_input.type.tensor_type.shape.dim[0].dim_value or None
    sizes = (preprocessing.channel_count, preprocessing.height, preprocessing.width)
    graph = OrtGraph(with_outputs(model, compared_tensors(model)))
    noise = np.random.default_rng(0).normal(size=(batch or 2, *sizes)).astype(np.float32)
    values, names = graph.run({graph_input.name: noise}), [value.name for value in model.graph.output]
    outputs = with_batch_axis(tuple(values[name] for name in names), len(noise))
    head = described(model, outputs, (preprocessing.height, preprocessing.width))
    require_rows(model, head, outputs, len(noise))
    require_separate_images(graph, noise, values)
    return Artifact(path, Manifest(
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        format="onnx",
        precision="float32",
        input_name=graph_input.name,
        input_shape=(batch, *sizes),
        output_name=names[0],
        more_outputs=tuple(names[1:]),
        preprocessing=preprocessing,
        labels=head.labels,
        output=head.output,
        kind=head.kind,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        lineage=(GivenRecord(source.name, sha256_file(source)),),
        versions=environment.package_versions(),
    ))  # fmt: skip
