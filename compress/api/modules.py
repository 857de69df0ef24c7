"""PyTorch modules as arguments of the Python API: copies to work on, and their export to ONNX."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.api.options import options_of
from compress.models.timm import recorded_preprocessing
from compress.networks import fusion
from compress.plain_onnx import PlainFile
from compress.recipe.foreign import NETWORK_ERRORS
from compress.recipe.network_defaults import completed
from export.inputs.image_input import ImageInput
from export.inputs.options import PreprocessingOptions, described
from export.parity import require_same
from export.to_onnx import INPUT_NAME, to_onnx
from runtimes.artifact import Artifact
from runtimes.console import Console
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing
from runtimes.session import load
from runtimes.target import Target

OPSET = 18


def working_copy(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode on the CPU, so that the module itself never changes."""
    try:
        return copy.deepcopy(module).cpu().eval()
    except (RuntimeError, TypeError) as error:
        raise InputError(f"module: can't be copied ({first_line(error)})") from error


def logits(network: nn.Module, images: Tensor) -> Tensor:
    """Return the network's output (N, ...) for (N, C, H, W); raises InputError if it has none or several."""
    size = " x ".join(map(str, images.shape[1:]))
    try:
        with torch.no_grad():
            output = network(images)
    except NETWORK_ERRORS as error:
        raise InputError(f"module: does not take images of {size} ({first_line(error)}); give arrays of its size, or "
                         "the size as in preprocessing={'crop': 224}") from error  # fmt: skip
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
        kind = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"module: must return one tensor (N, classes), not {kind}; wrap it in a module that does")
    return output


def preprocessing_for(network: nn.Module, size: tuple[int, int] | None, options: PreprocessingOptions) -> Preprocessing:
    """Return the preprocessing of a network: the options, then the size of the images, then timm's, then the usual."""
    channels = next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), 3)
    crop = size if options.crop is None else options.crop
    options = _with_those_of_timm(replace(options, crop=crop), network)
    return options.for_file(ImageInput(INPUT_NAME, "float32", "NCHW", None, channels, None, None))


def _with_those_of_timm(options: PreprocessingOptions, network: nn.Module) -> PreprocessingOptions:
    """Return options that are completed by the settings which timm stores in its networks, if this is one of them."""
    own = getattr(network, "pretrained_cfg", None)
    if not isinstance(own, dict) or not {"input_size", "crop_pct", "interpolation", "mean", "std"} <= own.keys():
        return options
    given = {name: value for name, value in vars(options).items() if value is not None}
    return options_of(completed(given, recorded_preprocessing(own)))


def say_preprocessing(preprocessing: Preprocessing, console: Console) -> None:
    """Say which preprocessing holds for a module, which has no manifest."""
    console.say(f"preprocessing: {described(preprocessing)}")


def fused(network: nn.Module, preprocessing: Preprocessing, console: Console) -> nn.Module:
    """Return the network with fused branches if it is a re-parameterized one; say what fusing changed."""
    if not fusion.is_fusible(network):
        return network
    network, summary = fusion.fused_checked(network, torch.zeros(1, *preprocessing.input_shape))
    console.say(summary.line())
    return network


def export(network: nn.Module, preprocessing: Preprocessing, path: Path) -> Artifact:
    """Write a network as a float32 ONNX file with its manifest; raises CompressError if its outputs differ."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *preprocessing.image_shape), np.uint8)
    expected = logits(network, torch.from_numpy(preprocessing.normalize(pixels)))
    try:
        to_onnx(network, path, preprocessing.input_shape, OPSET, batch=None)
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"module: can't be exported to ONNX ({first_line(error)}); export it to a file of your own "
                         "and quantize that") from error  # fmt: skip
    artifact = PlainFile.read(path).artifact(preprocessing)
    with closing(load(artifact, Target("local", batch=2))) as session:
        outputs = session.run(artifact.manifest.prepare(pixels))
    require_same(expected.flatten(1).numpy(), outputs[0].reshape(2, -1), path.name)
    artifact.save_manifest()
    return artifact


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
