"""Build strongly typed TensorRT engines from ONNX files: on the device itself, or on any machine for RTX cards.

Needs only TensorRT, so that a board can build its own engines. `export.to_trt` also checks the graph.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.backends import trt as backend
from runtimes.console import Console
from runtimes.errors import ArtifactError, CompressError, InputError, UnavailableError
from runtimes.files import write_bytes
from runtimes.lineage import BuildRecord, EngineLayer, find_record
from runtimes.target import Target

MAX_BATCH = 32  # of engines with a dynamic batch, unless the target's batch is larger
SUSPICIOUS = re.compile(r"uint8|int32|int64|zero.?point|type", re.IGNORECASE)
LAYER = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], Constants: .*?Metadata: (.*)$", re.MULTILINE)
DATATYPE = re.compile(r"(?:Format/)?Datatype:? (\w+)")
WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")
GENERATED = "kgen"  # kernels for the rest of a layer: bias, activation, the next quantization


@dataclass(frozen=True)
class Build:
    """Everything besides the ONNX file that an engine depends on.

    package: tensorrt or tensorrt_rtx, with its version. compute_capability: of the GPU, as in "8.6". batch: smallest,
    usual and largest batch. dla: core of the deep learning accelerator, None for the GPU.
    """

    package: str
    version: str
    compute_capability: str
    batch: tuple[int, int, int]
    dla: int | None


def build_for(artifact: Artifact, target: Target) -> Build:
    """Return the build settings of the engine of an ONNX artifact for a target.

    Raises UnavailableError where this machine has neither the target's GPU nor TensorRT-RTX, which builds for others.
    """
    here = backend.compute_capability()
    capability = here if target.compute_capability == "auto" else target.compute_capability
    if capability is None:
        raise UnavailableError(
            f"target '{target.name}': this machine has no NVIDIA GPU; set compute_capability to build for another"
        )
    package = backend.package(cross=capability != here)
    batch = artifact.manifest.input_shape[0]
    most = max(target.batch, MAX_BATCH) if batch is None else batch
    shapes = (1 if batch is None else batch, target.batch if batch is None else batch, most)
    return Build(package.__name__, package.__version__, capability, shapes, target.dla)


def why_not_built(target: Target) -> str | None:
    """Return why this machine cannot build an engine for a target, None if it can."""
    here = backend.compute_capability()
    capability = here if target.compute_capability == "auto" else target.compute_capability
    if capability is None:
        return "this machine has no NVIDIA GPU, and the target has no compute_capability"
    try:
        package = backend.package(cross=capability != here)
    except UnavailableError as error:
        return str(error)
    if capability != here and capability not in _capabilities(package):
        supported = ", ".join(_capabilities(package))
        return f"{package.__name__} builds for {supported}, not {capability}: the board builds the engine"
    return None


def engine(
    artifact: Artifact,
    target: Target,
    path: Path,
    console: Console,
    timing_cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Artifact:
    """Return the engine at `path`, built unless the existing one fits this artifact and target.

    timing_cache: a file shared by the builds of one target, written if the builder supports it. check: called before a
    build; may raise. Raises UnavailableError without the package, CompressError where the build fails or warns about
    types.
    """
    build = build_for(artifact, target)
    why = _why_not(path, artifact, build)
    if why is None:
        return Artifact.load(path)
    check()
    console.say(f"build {path.name} for compute capability {build.compute_capability}: {why}")
    plan, layers = build_plan(artifact.path.read_bytes(), build, artifact.manifest.precision, timing_cache)
    write_bytes(path, plan)
    record = BuildRecord(
        artifact.manifest.sha256, build.package, build.version, build.compute_capability, build.batch, build.dla,
        tuple(layers),
    )  # fmt: skip
    versions = {**environment.package_versions(), build.package: build.version}
    artifact.derive(path, record, format="trt", session_options={}, versions=versions).save_manifest()
    return Artifact.load(path)


def build_plan(
    model: bytes, build: Build, precision: str, timing_cache: Path | None
) -> tuple[bytes, list[EngineLayer]]:
    """Return a serialized engine and its weighted layers from the builder's log.

    model: an ONNX file's bytes. precision: int8, float16 or float32, for versions without strongly typed networks.
    Raises CompressError where the build fails, or warns about types: such an engine runs but gives wrong results.
    """
    trt = importlib.import_module(build.package)
    log = _log(trt)
    builder = trt.Builder(log)
    typed = build.dla is None and hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    network = builder.create_network(_network_flags(trt, typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise CompressError(f"{build.package} {build.version} cannot parse the graph: {errors}")
    config = builder.create_builder_config()
    _configure(trt, config, build, precision, typed)
    _add_profile(builder, network, config, build)
    cache = _timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    complaints = [text for severity, text in log.messages if severity == "WARNING" and SUSPICIOUS.search(text)]
    if plan is None or complaints:
        messages = complaints or [text for severity, text in log.messages if severity in ("ERROR", "INTERNAL_ERROR")]
        raise CompressError(f"{build.package} {build.version} cannot build the graph: {'; '.join(messages[:3])}")
    if cache is not None and timing_cache is not None:
        write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()))
    layers = (network.get_layer(index) for index in range(network.num_layers))
    weighted = {layer.name for layer in layers if layer.type.name in WEIGHTED}
    return bytes(plan), list(_layers(weighted, [text for _, text in log.messages]))


def int8_layers(manifest: Manifest) -> tuple[int, int] | None:
    """Return the number of INT8 weighted layers of an engine and of all weighted layers; None if unknown."""
    record = find_record(manifest.lineage, BuildRecord)
    if record is None or not record.layers:
        return None
    return sum(layer.is_int8 for layer in record.layers), len(record.layers)


def _why_not(path: Path, artifact: Artifact, build: Build) -> str | None:
    """Return why the engine at a path cannot be used, None if it can."""
    if not path.exists():
        return "it does not exist yet"
    try:
        manifest = Artifact.load(path).manifest
    except ArtifactError as error:
        return str(error)
    record = find_record(manifest.lineage, BuildRecord)
    if record is None:
        return f"the manifest of {path.name} has no build record"
    if record.from_sha256 != artifact.manifest.sha256:
        return f"the existing engine is of another {artifact.path.name}"
    for name in (each.name for each in fields(build)):
        built, value = getattr(record, name), getattr(build, name)
        if built != value:
            return f"the existing engine has {name} {built}, not {value}"
    return None


def _network_flags(trt: Any, typed: bool) -> int:
    """Return the flags of a strongly typed network with explicit batch, as far as the version has them."""
    flags, available = 0, trt.NetworkDefinitionCreationFlag
    if hasattr(available, "EXPLICIT_BATCH") and int(trt.__version__.partition(".")[0]) < 10:
        flags |= 1 << int(available.EXPLICIT_BATCH)
    if typed:
        flags |= 1 << int(available.STRONGLY_TYPED)
    return flags


def _configure(trt: Any, config: Any, build: Build, precision: str, typed: bool) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if build.package == backend.RTX:
        if build.compute_capability not in _capabilities(trt):
            raise InputError(f"{build.package} builds for the compute capabilities {', '.join(_capabilities(trt))}, "
                             f"not {build.compute_capability}")  # fmt: skip
        config.num_compute_capabilities = 1
        name = f"SM{build.compute_capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    if not typed:
        for flag in {"int8": ("INT8", "FP16"), "float16": ("FP16",), "float32": ()}[precision]:
            if hasattr(trt.BuilderFlag, flag):
                config.set_flag(getattr(trt.BuilderFlag, flag))
    if build.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = build.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _capabilities(trt: Any) -> list[str]:
    """Return the compute capabilities that TensorRT-RTX builds for, as in 8.6."""
    digit_names = [name[2:] for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    return [f"{digits[:-1]}.{digits[-1]}" for digits in sorted(digit_names, key=int)]


def _add_profile(builder: Any, network: Any, config: Any, build: Build) -> None:
    """Set the range of batch sizes if the batch is dynamic."""
    tensor = network.get_input(0)
    shape = tuple(tensor.shape)
    if shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in build.batch))
        config.add_optimization_profile(profile)


def _timing_cache(config: Any, path: Path | None) -> Any:
    """Load the timing cache of earlier builds; return None without one, or if the builder does not support it."""
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache


def _log(trt: Any) -> Any:
    """Return a logger that keeps (severity, text): without a GPU, only the log lists the layers."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:  # Any: trt.ILogger.Severity
            self.messages.append((severity.name, message))

    return Log()


def _layers(weighted: set[str], messages: list[str]) -> Iterator[EngineLayer]:
    """Yield the weighted layers of the builder's log, by their names in the ONNX file."""
    for text in messages:
        for _, kernel, inputs, origin in LAYER.findall(text):
            for name in re.findall(r"\[ONNX Layer: ([^\]]*)\]", origin):
                if kernel != GENERATED and name in weighted:
                    yield EngineLayer(name, kernel, tuple(DATATYPE.findall(inputs)))
