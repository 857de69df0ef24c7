from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from compress.models import mobilenet_v2
from compress.networks import hub
from compress.pipeline import identity as identities
from compress.pipeline.identity import identity
from compress.recipe import plugins
from compress.stages import distill, qat
from runtimes import environment
from runtimes.artifact import Artifact, Manifest
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target


@dataclass(frozen=True)
class Settings:
    name: str
    sides: tuple[int, ...]
    operators: frozenset[str] = frozenset({"Add", "Mul"})


class Fingerprinted:
    def identity(self) -> str:
        return "abc"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), (3, 3), (0.5, 0.5), ("a", "a"), ((1, [2]), [1, [2]]), ({"b": {1}}, {"b": [1]}),
        (np.float64(0.25), 0.25), (Fingerprinted(), "abc"),
        (Settings("a", (1, 2)), {"name": "a", "sides": [1, 2], "operators": ["Add", "Mul"]}),
    ],
)  # fmt: skip
def test_values_become_json(value: object, expected: object) -> None:
    assert identity(value) == expected


@pytest.mark.parametrize("value", [object(), b"bytes", [lambda: None]])
def test_a_type_without_a_rule_is_an_error_instead_of_a_missing_dependency(value: object) -> None:
    with pytest.raises(TypeError, match="identity has no rule"):
        identity(value)


def test_a_file_counts_by_its_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    assert identity(first) == identity(second) == hashlib.sha256(b"weights").hexdigest()
    first.write_bytes(b"WEIGHTS")
    assert identity(first) != identity(second)


def test_weights_of_the_hub_count_by_the_bytes_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = mobilenet_v2.Config(weights="hf:me/net")
    monkeypatch.setattr(hub, "cached", lambda weights: None)
    unknown = identity(config)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    monkeypatch.setattr(hub, "cached", lambda weights: path)
    assert identity(config) == identity(mobilenet_v2.Config(weights=str(path))) != unknown


def test_a_setting_that_names_a_file_counts_by_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    path.write_bytes(b"one")
    config = mobilenet_v2.Config(weights=str(path))
    before = identity(config)
    assert identity(mobilenet_v2.Config(weights=str(path))) == before
    path.write_bytes(b"two")  # as many bytes
    assert identity(config) != before


def test_the_weights_of_a_teacher_inside_a_stage_count_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    path.write_bytes(b"one")
    stage = distill.Config(teacher={"network": {"arch": "mobilenet_v2", "weights": str(path)}})
    before = identity(stage)
    path.write_bytes(b"two")
    assert identity(stage) != before


def test_weights_of_a_package_count_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    config = mobilenet_v2.Config(weights="package:numpy")
    before = identity(config)
    assert before["weights"]["version"] == [f"numpy {np.__version__}"]
    monkeypatch.setattr(identities.metadata, "version", lambda name: "999")
    assert identity(config) != before


def test_a_setting_that_can_not_be_a_path_is_itself() -> None:
    for text in ("", "x" * 5000, "a\0b"):
        assert identities._setting(text) == text


def test_a_default_and_the_same_value_written_out_are_the_same() -> None:
    written = mobilenet_v2.Config.model_validate_json(mobilenet_v2.Config().model_dump_json())
    assert identity(written) == identity(mobilenet_v2.Config())
    stage = qat.Config(warmup_epochs=0, checkpoint_minutes=10, augment={"erase": 0})
    assert identity(stage) == identity(qat.Config())
    assert identity(qat.Config(augment={"erase": 0.5})) != identity(stage)


def test_auto_is_resolved_before_it_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for instructions in ("x86-avx2", "x86-vnni"):
        monkeypatch.setattr(environment, "detect_instruction_set", lambda *_, name=instructions: name)
        found.append(identity(qat.Config().resolved())["scheme"])
    assert found == ["x86-avx2", "x86-vnni"]


def test_a_target_of_this_machine_counts_with_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(Target("here"))
    assert before["environment"]["cpu"] == environment.describe().cpu
    described = environment.describe()
    monkeypatch.setattr(environment, "describe", lambda: replace(described, cpu="another processor"))
    assert identity(Target("here")) != before


def test_the_cores_that_a_process_may_use_are_no_part_of_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(Target("here"))
    described = environment.describe()
    monkeypatch.setattr(environment, "describe", lambda: replace(described, cores=described.cores + 1))
    assert identity(Target("here")) == before


def test_a_target_elsewhere_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "why_not_here", lambda target: "it is another machine")
    before = identity(Target("board", instruction_set="arm64"))
    described = environment.describe()
    monkeypatch.setattr(environment, "describe", lambda: replace(described, cpu="another processor"))
    assert identity(Target("board", instruction_set="arm64")) == before


def test_an_artifact_counts_by_its_bytes_and_its_manifest(tmp_path: Path) -> None:
    manifest = Manifest(
        "0" * 64, 1, "onnx", "float32", "input", (None, 3, 8, 8), "logits", Preprocessing(8, 8), ("a", "b")
    )
    first = identity(Artifact(tmp_path / "a.onnx", manifest))
    assert identity(Artifact(tmp_path / "elsewhere" / "a.onnx", manifest)) == first
    assert identity(Artifact(tmp_path / "a.onnx", replace(manifest, sha256="1" * 64))) != first
    assert identity(Artifact(tmp_path / "a.onnx", replace(manifest, labels=("b", "a")))) != first


def test_own_code_counts_by_its_bytes(code: Callable[..., Path]) -> None:
    keys = []
    for text in ("def build(num_classes, width=1): pass", "def build(num_classes, width=1): return 3"):
        code(text)
        config = plugins.load("models", "my_net:build").Config
        keys += [identity(config()), identity(config(width=2))]
    assert len({json.dumps(key) for key in keys}) == 4
    assert identity(config(width=2)) == identity(config(width=2.0))


def test_a_packages_plug_in_counts_by_version_and_code(package: Callable[..., None]) -> None:
    text = """
from typing import Literal
from compress.recipe.section import Config
class Config(Config):
    stage: Literal["acme"] = "acme"
def run(network, context, config): return network
"""
    package({"acme_eight.py": text}, {"compress.stages": {"acme": "acme_eight"}})
    sha256 = hashlib.sha256(b"acme_eight.py" + text.encode()).hexdigest()
    assert identity(plugins.load("stages", "acme").Config()) == {
        "stage": "acme", "code": {"owner": "acme-nets 1.2", "sha256": sha256},
    }  # fmt: skip
