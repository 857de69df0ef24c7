"""A TensorRT engine from an ONNX file, strongly typed: on the device that runs it, or for RTX cards anywhere.

Needs TensorRT alone, so that a board can build its own. `export.to_trt` looks at the graph before.
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

MOST_IMAGES = 32  # of a dynamic batch, unless the target's is larger
SUSPICIOUS = re.compile(r"uint8|int32|int64|zero.?point|type", re.IGNORECASE)
LAYER = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], Constants: .*?Metadata: (.*)$", re.MULTILINE)
DATATYPE = re.compile(r"(?:Format/)?Datatype:? (\w+)")
WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")
GENERATED = "kgen"  # a layer's parts that are no matrix product: bias, activation, the next quantization


@dataclass(frozen=True)
class Build:
    """All that decides what an engine is, beside the ONNX file.

    package: tensorrt or tensorrt_rtx, with its version. compute_capability: of the GPU, as in "8.6". batch: least,
    usual and most images of a call. dla: core of the deep learning accelerator, None for the GPU.
    """

    package: str
    version: str
    compute_capability: str
    batch: tuple[int, int, int]
    dla: int | None


def build_for(artifact: Artifact, target: Target) -> Build:
    """Return what an engine of an ONNX artifact for a target has to be.

    Raises UnavailableError where neither the target's GPU is here nor TensorRT-RTX, which builds for GPUs elsewhere.
    """
    here = backend.compute_capability()
    wanted = here if target.compute_capability == "auto" else target.compute_capability
    if wanted is None:
        raise UnavailableError(f"target '{target.name}': no NVIDIA GPU is here; name its compute_capability to build")
    package = backend.package(cross=wanted != here)
    batch = artifact.manifest.input_shape[0]
    most = max(target.batch, MOST_IMAGES) if batch is None else batch
    shapes = (1 if batch is None else batch, target.batch if batch is None else batch, most)
    return Build(package.__name__, package.__version__, wanted, shapes, target.dla)


def why_not_built(target: Target) -> str | None:
    """Return why no engine for a target can be built on this machine, None where it can."""
    here = backend.compute_capability()
    wanted = here if target.compute_capability == "auto" else target.compute_capability
    if wanted is None:
        return "no NVIDIA GPU is here, and the target names no compute_capability"
    try:
        package = backend.package(cross=wanted != here)
    except UnavailableError as error:
        return str(error)
    if wanted != here and wanted not in _capabilities(package):
        return f"{package.__name__} builds for {', '.join(_capabilities(package))}, not {wanted}: the board builds it"
    return None


def engine(
    artifact: Artifact,
    target: Target,
    path: Path,
    console: Console,
    timing_cache: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Artifact:
    """Return the engine at `path`, built unless it is there and is what this artifact and target need.

    timing_cache: a file that builds of one target share; written where the builder has one. check: called before a
    build, to raise. Raises UnavailableError without the package, CompressError where the build fails or complains about
    types.
    """
    wanted = build_for(artifact, target)
    why = _why_not(path, artifact, wanted)
    if why is None:
        return Artifact.load(path)
    check()
    console.say(f"build {path.name} for compute capability {wanted.compute_capability}: {why}")
    plan, layers = build_plan(artifact.path.read_bytes(), wanted, artifact.manifest.precision, timing_cache)
    write_bytes(path, plan)
    record = BuildRecord(
        artifact.manifest.sha256, wanted.package, wanted.version, wanted.compute_capability, wanted.batch, wanted.dla,
        tuple(layers),
    )  # fmt: skip
    versions = {**environment.package_versions(), wanted.package: wanted.version}
    artifact.derive(path, record, format="trt", session_options={}, versions=versions).save_manifest()
    return Artifact.load(path)


def build_plan(
    model: bytes, wanted: Build, precision: str, timing_cache: Path | None
) -> tuple[bytes, list[EngineLayer]]:
    """Return a serialized engine and its weighted layers, as the builder's own table tells them.

    model: an ONNX file's bytes. precision: "int8", "float16" or "float32", for versions whose networks are not strongly
    typed. Raises CompressError where the build fails, or warns about types: then it would run, and be wrong in silence.
    """
    trt = importlib.import_module(wanted.package)
    log = _log(trt)
    builder = trt.Builder(log)
    typed = wanted.dla is None and hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    network = builder.create_network(_network_flags(trt, typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise CompressError(f"{wanted.package} {wanted.version} can't parse the graph: {errors}")
    config = builder.create_builder_config()
    _configure(trt, config, wanted, precision, typed)
    _add_profile(builder, network, config, wanted)
    cache = _timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    complaints = [text for severity, text in log.messages if severity == "WARNING" and SUSPICIOUS.search(text)]
    if plan is None or complaints:
        told = complaints or [text for severity, text in log.messages if severity in ("ERROR", "INTERNAL_ERROR")]
        raise CompressError(f"{wanted.package} {wanted.version} can't build what is meant: {'; '.join(told[:3])}")
    if cache is not None and timing_cache is not None:
        write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()))
    layers = (network.get_layer(index) for index in range(network.num_layers))
    weighted = {layer.name for layer in layers if layer.type.name in WEIGHTED}
    return bytes(plan), list(_layers(weighted, [text for _, text in log.messages]))


def int8_layers(manifest: Manifest) -> tuple[int, int] | None:
    """Return how many weighted layers of an engine multiply integers, and of how many; None where nobody told."""
    record = find_record(manifest.lineage, BuildRecord)
    if record is None or not record.layers:
        return None
    return sum(layer.is_int8 for layer in record.layers), len(record.layers)


def _why_not(path: Path, artifact: Artifact, wanted: Build) -> str | None:
    """Return why the engine at a path can't be used, None if it can."""
    if not path.exists():
        return "there is none yet"
    try:
        manifest = Artifact.load(path).manifest
    except ArtifactError as error:
        return str(error)
    record = find_record(manifest.lineage, BuildRecord)
    if record is None:
        return f"{path.name} does not say how it was built"
    if record.from_sha256 != artifact.manifest.sha256:
        return f"the one that is there is of another {artifact.path.name}"
    for name in (each.name for each in fields(wanted)):
        built, value = getattr(record, name), getattr(wanted, name)
        if built != value:
            return f"the one that is there has {name} {built}, not {value}"
    return None


def _network_flags(trt: Any, typed: bool) -> int:
    """Return 0 where all networks are what we want; older versions have to be asked."""
    flags, known = 0, trt.NetworkDefinitionCreationFlag
    if hasattr(known, "EXPLICIT_BATCH") and int(trt.__version__.partition(".")[0]) < 10:
        flags |= 1 << int(known.EXPLICIT_BATCH)
    if typed:
        flags |= 1 << int(known.STRONGLY_TYPED)
    return flags


def _configure(trt: Any, config: Any, wanted: Build, precision: str, typed: bool) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if wanted.package == backend.RTX:
        if wanted.compute_capability not in _capabilities(trt):
            raise InputError(f"{wanted.package} builds for the compute capabilities {', '.join(_capabilities(trt))}, "
                             f"not {wanted.compute_capability}")  # fmt: skip
        config.num_compute_capabilities = 1
        name = f"SM{wanted.compute_capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    if not typed:
        for flag in {"int8": ("INT8", "FP16"), "float16": ("FP16",), "float32": ()}[precision]:
            if hasattr(trt.BuilderFlag, flag):
                config.set_flag(getattr(trt.BuilderFlag, flag))
    if wanted.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = wanted.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _capabilities(trt: Any) -> list[str]:
    """Return what TensorRT-RTX builds for, as in 8.6."""
    known = [name[2:] for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    return [f"{digits[:-1]}.{digits[-1]}" for digits in sorted(known, key=int)]


def _add_profile(builder: Any, network: Any, config: Any, wanted: Build) -> None:
    """Say which batches are called for, where the batch is dynamic."""
    given = network.get_input(0)
    shape = tuple(given.shape)
    if shape[0] == -1:
        profile = builder.create_optimization_profile()
        profile.set_shape(given.name, *((batch, *shape[1:]) for batch in wanted.batch))
        config.add_optimization_profile(profile)


def _timing_cache(config: Any, path: Path | None) -> Any:
    """Give the builder what earlier builds measured; None where it keeps nothing, as when it builds ahead of time."""
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache


def _log(trt: Any) -> Any:
    """Return a logger that keeps (severity, text): the table of layers is told nowhere else without a GPU."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((severity.name, message))

    return Log()


def _layers(weighted: set[str], messages: list[str]) -> Iterator[EngineLayer]:
    """Yield the weighted layers as the builder's own table shows them, by their names in the ONNX file."""
    for text in messages:
        for _, kernel, inputs, origin in LAYER.findall(text):
            for name in re.findall(r"\[ONNX Layer: ([^\]]*)\]", origin):
                if kernel != GENERATED and name in weighted:
                    yield EngineLayer(name, kernel, tuple(DATATYPE.findall(inputs)))
