"""Tests of runtimes.engine with a fake builder: build settings, reuse of engines, builder flags.

`tests/export/test_to_trt.py` builds real ones.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from consoles import RecordingConsole

from runtimes import engine
from runtimes.artifact import Artifact, Manifest, manifest_path
from runtimes.backends import trt as backend
from runtimes.engine import Build, build_for, build_plan, int8_layers, why_not_built
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.lineage import BuildRecord, EngineLayer, QuantizeRecord, StageRecord
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

ORIN = Target("orin", runtime="trt", provider="cuda", compute_capability="8.7")
TABLE = ("Name: fused, LayerType: CaskConvolution, Inputs: [ { Name: x, Dimensions: [1,3], Format/Datatype: Int8 }], "
         "Constants: none, Metadata: [ONNX Layer: stem]")  # fmt: skip


class FakeTrt(ModuleType):
    """TensorRT whose builder writes a table of one INT8 layer into the log, and records its settings."""

    __version__ = "10.3"

    def __init__(self, name: str, messages: list[tuple[str, str]], parses: bool = True, plan: bytes | None = b"plan"):
        super().__init__(name)
        self.messages, self.parses, self.plan = [("VERBOSE", TABLE), *messages], parses, plan
        self.profile: list[tuple[int, ...]] = []
        self.flags: set[str] = set()
        self.cache_content: bytes | None = None
        self.config = SimpleNamespace(
            set_flag=self.flags.add, add_optimization_profile=lambda profile: None,
            create_timing_cache=self._create_cache, set_timing_cache=lambda cache, ignore_mismatch: True,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: b"timings"),
            set_compute_capability=lambda capability, index: self.flags.add(capability),
        )  # fmt: skip
        self.ILogger = type("ILogger", (), {"__init__": lambda logger: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        self.ComputeCapability = SimpleNamespace(SM86="SM86", SM120="SM120")
        self.BuilderFlag = SimpleNamespace(INT8="INT8", FP16="FP16", GPU_FALLBACK="GPU_FALLBACK")
        self.DeviceType = SimpleNamespace(DLA="DLA")

    def _create_cache(self, content: bytes) -> object:
        self.cache_content = content
        return object()

    def Builder(self, log: Any) -> SimpleNamespace:  # noqa: N802 (TensorRT's name)
        """Return a builder."""
        layers = [SimpleNamespace(name="stem", type=SimpleNamespace(name="CONVOLUTION")),
                  SimpleNamespace(name="relu", type=SimpleNamespace(name="ACTIVATION"))]  # fmt: skip
        network = SimpleNamespace(
            num_layers=2, get_layer=layers.__getitem__,
            get_input=lambda index: SimpleNamespace(name="images", shape=(-1, 3, 8, 8)),
        )  # fmt: skip

        def build(network: Any, config: Any) -> bytes | None:
            for severity, text in self.messages:
                log.log(SimpleNamespace(name=severity), text)
            return self.plan

        def profile() -> SimpleNamespace:
            return SimpleNamespace(set_shape=lambda name, *shapes: self.profile.extend(shapes))

        return SimpleNamespace(
            create_network=lambda flags: network, create_builder_config=lambda: self.config,
            build_serialized_network=build, create_optimization_profile=profile,
        )  # fmt: skip

    def OnnxParser(self, network: Any, log: Any) -> SimpleNamespace:  # noqa: N802 (TensorRT's name)
        """Return a parser."""
        error = SimpleNamespace(desc=lambda: "unsupported operator")
        return SimpleNamespace(parse=lambda model: self.parses, num_errors=1, get_error=lambda index: error)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a fake TensorRT on a machine with an Orin; return a function that replaces it."""

    def install(name: str = "tensorrt", messages: Any = (), **options: Any) -> FakeTrt:
        trt = FakeTrt(name, list(messages), **options)
        monkeypatch.setitem(sys.modules, name, trt)
        monkeypatch.setattr(backend, "package", lambda cross: trt)
        return trt

    monkeypatch.setattr(backend, "compute_capability", lambda: "8.7")
    return install


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Return an INT8 artifact with a dynamic batch."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    return Artifact(path, Manifest(
        sha256_file(path), 5, "onnx", "int8", "images", (None, 3, 8, 8), "logits", Preprocessing(8, 8), ("a", "b"),
        session_options={"session.x": "1"}, lineage=(StageRecord({"stage": "train"}),),
    ))  # fmt: skip


def test_the_build_depends_on_package_gpu_batch_and_dla(fake: Any, artifact: Artifact) -> None:
    fake()
    assert build_for(artifact, ORIN) == Build("tensorrt", "10.3", "8.7", (1, 1, 32), None)
    assert build_for(artifact, replace(ORIN, batch=64, dla=1)) == Build("tensorrt", "10.3", "8.7", (1, 64, 64), 1)
    fixed = replace(artifact, manifest=replace(artifact.manifest, input_shape=(4, 3, 8, 8)))
    assert build_for(fixed, ORIN).batch == (4, 4, 4)


def test_without_a_gpu_the_target_must_have_a_compute_capability(
    fake: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "compute_capability", lambda: None)
    target = replace(ORIN, compute_capability="auto")
    with pytest.raises(UnavailableError, match="target 'orin': this machine has no NVIDIA GPU"):
        build_for(artifact, target)
    assert why_not_built(target) == "this machine has no NVIDIA GPU, and the target has no compute_capability"


def test_why_not_built_names_what_the_package_builds_for(fake: Any) -> None:
    fake()
    assert why_not_built(ORIN) is None
    reason = why_not_built(replace(ORIN, compute_capability="7.5"))
    assert reason == "tensorrt builds for 8.6, 12.0, not 7.5: the board builds the engine"


def test_an_engine_is_described_and_reused(fake: Any, artifact: Artifact, tmp_path: Path) -> None:
    fake()
    console, path = RecordingConsole(), tmp_path / "model.engine"
    built = engine.engine(artifact, ORIN, path, console)
    assert console.said == ["build model.engine for compute capability 8.7: it does not exist yet"]
    assert path.read_bytes() == b"plan"
    manifest = built.manifest
    assert (manifest.format, manifest.session_options, manifest.versions["tensorrt"]) == ("trt", {}, "10.3")
    assert manifest.lineage == (
        *artifact.manifest.lineage,
        BuildRecord(artifact.manifest.sha256, "tensorrt", "10.3", "8.7", (1, 1, 32), None,
                    (EngineLayer("stem", "CaskConvolution", ("Int8",)),)),
    )  # fmt: skip
    assert engine.engine(artifact, ORIN, path, console, check=pytest.fail) == built  # type: ignore[arg-type]
    assert len(console.said) == 1


@pytest.mark.parametrize(("change", "reason"), [
    (lambda artifact: replace(artifact, manifest=replace(artifact.manifest, sha256="1" * 64)), "is of another model"),
    (lambda artifact: replace(artifact, manifest=replace(artifact.manifest, input_shape=(2, 3, 8, 8))),
     r"has batch (1, 1, 32), not (2, 2, 2)"),
])  # fmt: skip
def test_an_engine_that_does_not_fit_is_built_again(
    fake: Any, artifact: Artifact, tmp_path: Path, change: Any, reason: str
) -> None:
    fake()
    console, path = RecordingConsole(), tmp_path / "model.engine"
    engine.engine(artifact, ORIN, path, console)
    engine.engine(change(artifact), ORIN, path, console)
    assert reason in console.said[1]


def test_the_check_is_called_before_a_build(fake: Any, artifact: Artifact, tmp_path: Path) -> None:
    fake()

    def refuse() -> None:
        raise InputError("a bad graph")

    with pytest.raises(InputError, match="a bad graph"):
        engine.engine(artifact, ORIN, tmp_path / "model.engine", RecordingConsole(), check=refuse)
    assert not manifest_path(tmp_path / "model.engine").exists()


def test_a_dynamic_batch_gets_a_profile_and_a_timing_cache_is_kept(fake: Any, tmp_path: Path) -> None:
    trt, cache = fake(), tmp_path / "timings"
    cache.write_bytes(b"earlier")
    build_plan(b"graph", Build("tensorrt", "10.3", "8.7", (1, 4, 32), None), "float32", cache)
    assert trt.profile == [(1, 3, 8, 8), (4, 3, 8, 8), (32, 3, 8, 8)]
    assert trt.cache_content == b"earlier"
    assert cache.read_bytes() == b"timings"


@pytest.mark.parametrize(("precision", "flags"), [
    ("int8", {"INT8", "FP16", "GPU_FALLBACK"}), ("float16", {"FP16", "GPU_FALLBACK"}), ("float32", {"GPU_FALLBACK"}),
])  # fmt: skip
def test_a_deep_learning_accelerator_gets_flags_instead_of_types(fake: Any, precision: str, flags: set[str]) -> None:
    trt = fake()
    build_plan(b"graph", Build("tensorrt", "10.3", "8.7", (1, 1, 1), 0), precision, None)
    assert trt.flags == flags
    assert (trt.config.default_device_type, trt.config.DLA_core) == ("DLA", 0)


def test_rtx_is_given_the_compute_capability(fake: Any) -> None:
    trt = fake("tensorrt_rtx")
    build_plan(b"graph", Build("tensorrt_rtx", "1.1", "12.0", (1, 1, 1), None), "int8", None)
    assert trt.flags == {"SM120"}
    with pytest.raises(InputError, match=r"builds for the compute capabilities 8\.6, 12\.0, not 8\.7"):
        build_plan(b"graph", Build("tensorrt_rtx", "1.1", "8.7", (1, 1, 1), None), "int8", None)


@pytest.mark.parametrize(("options", "message"), [
    ({"parses": False}, r"tensorrt 10\.3 cannot parse the graph: unsupported operator"),
    ({"plan": None, "messages": [("ERROR", "no kernel")]}, r"tensorrt 10\.3 cannot build the graph: no kernel"),
    ({"messages": [("WARNING", "input uint8 is read as int8")]}, "cannot build the graph: input uint8 is read as int8"),
])  # fmt: skip
def test_failures_and_warnings_about_types_are_errors(fake: Any, options: dict[str, Any], message: str) -> None:
    fake(**options)
    with pytest.raises(CompressError, match=message):
        build_plan(b"graph", Build("tensorrt", "10.3", "8.7", (1, 1, 1), None), "int8", None)


def test_int8_layers_are_counted(artifact: Artifact) -> None:
    layers = (EngineLayer("a", "k", ("Int8",)), EngineLayer("b", "k", ("Half",)), EngineLayer("c", "k", ("Int8",)))
    record = BuildRecord("0" * 64, "tensorrt", "10.3", "8.7", (1, 1, 1), None, layers)
    assert int8_layers(artifact.with_record(record).manifest) == (2, 3)
    assert int8_layers(artifact.with_record(replace(record, layers=())).manifest) is None
    assert int8_layers(artifact.with_record(QuantizeRecord("0" * 64, "nncf", 1, "0" * 64)).manifest) is None
