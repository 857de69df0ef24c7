"""`compress.quantize`: a float32 network to an INT8 file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnx

from compress.api.images import Images, Item, items_of, samples_of, size_of
from compress.api.options import PreprocessingArgument, options_of
from compress.api.targets import TargetOrName, scheme_name
from compress.images.samples import Sample
from compress.process.console import Terminal
from compress.process.user_cache import user_cache
from compress.quantization.config import Quantize
from compress.quantization.onnx_file import FileRequest, quantize_file
from compress.recipe.errors import validated
from compress.recipe.strict_yaml import YamlValue
from export.inputs.options import PreprocessingOptions, described
from runtimes.artifact import Artifact, manifest_path, read_manifest
from runtimes.console import Console
from runtimes.errors import InputError

if TYPE_CHECKING:  # files need no torch
    from torch import nn

    Model: TypeAlias = nn.Module | str | Path | Artifact | onnx.ModelProto


def quantize(
    model: Model,
    images: Images,
    target: TargetOrName = None,
    *,
    out: str | Path | None = None,
    preprocessing: PreprocessingArgument = None,
    quiet: bool = False,
    **settings: YamlValue,
) -> Artifact:
    """Quantize a float32 network to INT8; return the artifact, a file with its manifest.

    model: a PyTorch module that takes (N, C, H, W) and returns one tensor, or an ONNX file. The module is not changed;
        its float32 file is written beside the INT8 file, as OUT-float32.onnx.
    images: for calibration, without labels: a folder, a list of paths, Pillow images, or uint8 arrays (N, H, W, 3).
    target: device to quantize for, as in recipes, or the name of a scheme; by default this machine's CPU.
    out: file to write; by default MODEL-int8.onnx, beside an ONNX file, else in the working folder.
    preprocessing: dict with keys of a recipe's section; the rest is that of the manifest of an ONNX file, the size of
        the file or of arrays, that of a module of timm, the mean and std of ImageNet.
    quiet: show no progress.
    settings: keys of a recipe's section `quantize`, as in `min_agreement=0.98`.

    Raises InputError for a network, images or settings that can't be used.
    """
    arguments = _Arguments(
        model, items_of(images), _default_out(model) if out is None else Path(out), scheme_name(target),
        options_of(preprocessing), validated(Quantize, settings),
    )  # fmt: skip
    with Terminal(quiet=quiet) as terminal, tempfile.TemporaryDirectory(prefix="compress-") as name:
        artifact = _quantized(arguments, Path(name), terminal)
        if out is None:
            terminal.say(f"wrote {artifact.path}")
    return artifact


@dataclass(frozen=True)
class _Arguments:
    """Checked arguments of `quantize`. scheme: name."""

    model: Model
    images: Path | list[Item]
    out: Path
    scheme: str
    preprocessing: PreprocessingOptions
    settings: Quantize


def _quantized(arguments: _Arguments, folder: Path, console: Console) -> Artifact:
    """Write the INT8 file. folder: for temporary files."""
    path, preprocessing = _float32(arguments, folder, console)
    calibration = _calibration(arguments, folder, console)
    request = FileRequest(path, calibration, arguments.scheme, preprocessing, arguments.settings, arguments.out)
    return quantize_file(request, console, user_cache("calibration"))


def _calibration(arguments: _Arguments, folder: Path, console: Console) -> Path | tuple[Sample, ...]:
    images, count = arguments.images, arguments.settings.calibration_images
    if isinstance(images, Path):
        return images
    if count < len(images):
        console.say(
            f"calibration images: {count} of {len(images)}, evenly spaced; calibration_images sets their number"
        )
    return samples_of(images, count, folder)


def _float32(arguments: _Arguments, folder: Path, console: Console) -> tuple[Path, PreprocessingOptions]:
    """Return the float32 file, and the settings of its preprocessing that are known."""
    model, given = arguments.model, arguments.preprocessing
    if isinstance(model, (str, Path, Artifact)):
        path = model.path if isinstance(model, Artifact) else Path(model)
        return path, _of_manifest(path, given, console)
    if isinstance(model, onnx.ModelProto):
        path = folder / "model.onnx"
        onnx.save(model, path)
        return path, given
    from torch import nn

    from compress.api import modules  # imports torch, which files do not need

    if not isinstance(model, nn.Module):
        raise InputError(f"model: must be a PyTorch module or an ONNX file, not {type(model).__name__}")
    network = modules.working_copy(model)
    preprocessing = modules.preprocessing_for(network, size_of(arguments.images), given)
    modules.say_preprocessing(preprocessing, console)
    path = arguments.out.with_name(f"{arguments.out.stem}-float32.onnx")
    modules.export(modules.fused(network, preprocessing, console), preprocessing, path)
    return path, PreprocessingOptions.of(preprocessing)


def _of_manifest(model: Path, given: PreprocessingOptions, console: Console) -> PreprocessingOptions:
    """Return the preprocessing of the manifest beside a model, else that of the options.

    Raises InputError if the options contradict the manifest.
    """
    path = manifest_path(model)
    if not path.is_file():
        return given
    own = read_manifest(path).preprocessing
    if given.contradict(own):
        raise InputError(f"{path}: names another preprocessing than the options: {described(own)}; remove the options, "
                         "or move that manifest away if it is wrong")  # fmt: skip
    console.say(f"preprocessing of {path.name}: {described(own)}")
    return PreprocessingOptions.of(own)


def _default_out(model: Model) -> Path:
    if isinstance(model, (str, Path, Artifact)):
        path = model.path if isinstance(model, Artifact) else Path(model)
        return path.with_name(f"{path.stem}-int8.onnx")
    name = model.graph.name if isinstance(model, onnx.ModelProto) else type(model).__name__
    return Path(f"{name or 'model'}-int8.onnx")
