"""List plug-ins, runtimes, recipes and targets, and examine this machine: packages, processor and GPU."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import runtimes
from compress.recipe import installed, plugins, shipped
from runtimes import environment
from runtimes.errors import InputError
from runtimes.target import runtime_names

NEEDED_BY = {
    "torch": "training: pip install 'compress-classifiers[host]'",
    "torchvision": "models: pip install 'compress-classifiers[host]'",
    "timm": "the models timm and efficientnet_lite: pip install 'compress-classifiers[host]'",
    "onnx": "export: pip install 'compress-classifiers[host]'",
    "onnxruntime": "the runtime ort: pip install onnxruntime",
    "nncf": "quantize.method nncf: pip install 'compress-classifiers[host]'",
    "elpv_dataset": "the data set elpv: pip install elpv-dataset",
    "openvino": "the runtime ov: pip install 'compress-classifiers[openvino]'",
    "ai_edge_litert": "the runtime litert: pip install 'compress-classifiers[litert]'",
    "tensorrt": "TensorRT engines: pip install 'compress-classifiers[tensorrt]', or JetPack's own package",
    "tensorrt_rtx": "TensorRT-RTX engines: pip install 'compress-classifiers[rtx]'",
}
INTEGER_ARITHMETIC = {
    "x86-vnni": "INT8 sums are exact: weights use all 8 bits",
    "x86-avx2": "no VNNI: INT8 sums saturate at 16 bits without an error, so the weights are limited",
    "arm64": "INT8 sums are exact: weights use all 8 bits",
}
Listed = Literal["models", "data", "stages", "runtimes", "recipes", "sweeps", "targets"]

COLUMNS = 80
FILES = {"recipes": shipped.recipes, "sweeps": shipped.sweeps, "targets": shipped.targets}


def listing(kind: Listed) -> list[tuple[str, str]]:
    """Return the name and a one-line description of everything of that kind."""
    if kind == "recipes" or kind == "sweeps" or kind == "targets":
        return [(name, _first_comment(path)) for name, path in FILES[kind]().items()]
    if kind == "runtimes":
        names, folder = runtime_names(), Path(runtimes.__file__).parent / "backends"
    else:
        names, folder = plugins.built_in(kind), Path(__file__).parent / kind
    lines = [(name, _first_line(folder / f"{name}.py")) for name in names]
    return lines if kind == "runtimes" else [*lines, *_of_packages(kind)]


def _of_packages(kind: plugins.Kind) -> Iterator[tuple[str, str]]:
    """Yield the plug-ins of installed packages, which are imported, with their package or what is wrong with them."""
    for name, (first, *_) in sorted(installed.all_of(kind).items()):
        try:
            doc = plugins.load(kind, name).__doc__ or ""
        except InputError as error:
            yield name, f"unusable: {error}"
        else:
            yield name, f"{doc.strip().partition(chr(10))[0]} (package {first.package})"


def timm_listing(pattern: str) -> list[str]:
    """Return a line of at most 80 columns for each network of timm whose name matches a pattern as of files.

    It says for which images the network was made, and the tags of its published weights, timm's choice first. Builds no
    network; raises InputError if none matches.
    """
    from compress.models import timm  # asks the package timm, which takes seconds to import and may be missing

    names = timm.matching_names(pattern)
    width = max(map(len, names))
    return [_timm_line(f"{name:<{width}}", *timm.facts(name), is_tagged="." in name) for name in names]


def _timm_line(name: str, size: str, tags: tuple[str, ...], is_tagged: bool) -> str:
    start = f"{name}  {size:>4} px  "
    if is_tagged or not tags:
        return f"{start}{'weights' if tags else 'no weights'}".rstrip()
    room = COLUMNS - len(start)
    texts = [", ".join([*tags[:count], *(["…"] if count < len(tags) else [])]) for count in range(len(tags), 0, -1)]
    return start + next((text for text in texts if len(text) <= room), "weights")


def examine() -> list[tuple[str, str]]:
    """Return (subject, finding) pairs about this machine; imports torch to find a GPU and runs ONNX Runtime."""
    machine = environment.describe()
    free_gib = shutil.disk_usage(".").free / 2**30
    findings = [
        ("python", machine.python),
        ("system", machine.system),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("instruction set", f"{machine.instruction_set}: {INTEGER_ARITHMETIC[machine.instruction_set]}"),
        ("integer kernels", _integer_kernels()),
        ("free disk", f"{free_gib:.0f} GiB in this folder"),
    ]
    versions = environment.package_versions(tuple(NEEDED_BY))
    for module, need in NEEDED_BY.items():
        if importlib.util.find_spec(module) is None:
            findings.append((module, f"missing; needed by {need}"))
        else:
            findings.append((module, versions.get(module, "installed")))
    return [*findings, ("GPU", _gpu())]


def _integer_kernels() -> str:
    """Return which of ONNX Runtime's integer kernels saturate, measured with sums that overflow 16 bits."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        return "unknown without onnxruntime and onnx"
    # Imports onnx, which may be missing; `compress list` does not need it.
    from compress.quantization.probe import probe

    kernels = probe()
    saturates = {
        "convolutions": kernels.dense_saturates,
        "Gemm": kernels.gemm_saturates,
        "depthwise convolutions": kernels.depthwise_saturates,
    }
    saturating = [name for name, is_saturating in saturates.items() if is_saturating]
    if not saturating:
        return "measured: sums with 8-bit weights are exact"
    limited = "exact" if kernels.limited_is_exact else "wrong, too; use the target generic"
    return f"measured: 8-bit weights saturate in {', '.join(saturating)}; sums with limited weights are {limited}"


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use; training and measuring run on the CPU"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _first_line(path: Path) -> str:
    """Return the first line of a module's docstring without importing it."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
