"""What there is: plug-ins, runtimes, packages, processor and GPU, and what is missing for the rest."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from pathlib import Path

import runtimes
from compress.recipe import plugins, targets
from compress.recipe.recipe import shipped_recipes
from runtimes import environment
from runtimes.target import runtime_names

NEEDED_BY = {
    "torch": "training: pip install -e '.[host]'",
    "torchvision": "models: pip install -e '.[host]'",
    "timm": "efficientnet_lite: pip install -e '.[host]'",
    "onnx": "export: pip install -e '.[host]'",
    "onnxruntime": "the runtime ort: pip install onnxruntime",
    "nncf": "quantize.method nncf: pip install -e '.[host]'",
    "elpv_dataset": "the data set elpv: pip install elpv-dataset",
    "openvino": "the runtime ov: pip install -e '.[openvino]'",
    "ai_edge_litert": "the runtime litert: pip install -e '.[litert]'",
    "tensorrt": "TensorRT engines: pip install -e '.[tensorrt]', or JetPack's own package",
    "tensorrt_rtx": "TensorRT-RTX engines: pip install -e '.[rtx]'",
}
WHY_INSTRUCTION_SET = {
    "x86-vnni": "INT8 sums are exact: weights keep 8 bits",
    "x86-avx2": "no VNNI: INT8 sums of 16 bits saturate in silence, so neighbouring weights are kept from it",
    "arm64": "INT8 sums are exact: weights keep 8 bits",
}


def listing(kind: str) -> list[tuple[str, str]]:
    """Return (name, first line of its documentation) of all models, data, stages, runtimes, recipes or targets."""
    if kind == "recipes":
        return [(str(path), _first_comment(path)) for path in shipped_recipes()]
    if kind == "targets":
        return [(path.stem, _first_comment(path)) for path in targets.shipped()]
    if kind == "runtimes":
        folder = Path(runtimes.__file__).parent / "backends"
        return [(name, _first_line(folder / f"{name}.py")) for name in runtime_names()]
    folder = Path(__file__).parent / kind
    return [(name, _first_line(folder / f"{name}.py")) for name in plugins.names(kind)]  # type: ignore[arg-type]


def examine() -> list[tuple[str, str]]:
    """Return (subject, finding) lines about this machine; torch is loaded to look for a GPU, ONNX Runtime to try it."""
    machine = environment.describe()
    free_gib = shutil.disk_usage(".").free / 2**30
    lines = [
        ("python", machine.python),
        ("system", machine.system),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("instruction set", f"{machine.instruction_set}: {WHY_INSTRUCTION_SET[machine.instruction_set]}"),
        ("integer kernels", _integer_kernels()),
        ("free disk", f"{free_gib:.0f} GiB here"),
    ]
    versions = environment.package_versions(tuple(NEEDED_BY))
    for module, need in NEEDED_BY.items():
        if importlib.util.find_spec(module) is None:
            lines.append((module, f"missing; needed by {need}"))
        else:
            lines.append((module, versions.get(module, "installed")))
    return [*lines, ("GPU", _gpu())]


def _integer_kernels() -> str:
    """Run ONNX Runtime's kernels on what would overflow 16 bits."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        return "unknown without onnxruntime and onnx"
    from compress.quantization.probe import probe

    found = probe()
    tried = {"convolutions": found.dense_saturates, "Gemm": found.gemm_saturates,
             "depthwise convolutions": found.depthwise_saturates}  # fmt: skip
    saturating = [name for name, saturates in tried.items() if saturates]
    if not saturating:
        return "8-bit weights give exact sums (tried)"
    ours = "exact" if found.limited_is_exact else "wrong, too: use target generic"
    return f"8-bit weights saturate in {', '.join(saturating)} (tried); our files' sums are {ours} (tried)"


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use; training and measuring run on the CPU"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
