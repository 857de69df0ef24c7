"""The commands bundle and deploy, with a stand-in for the connection."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_one_line, call
from made_report import measurement, publish
from onnx import TensorProto, helper, save

from compress.boards.deploy import Deployed
from compress.boards.inventory import Board
from compress.cli import boards as boards_cli
from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a report."""
    publish(tmp_path, measurement("int8", 40, 1.0, 2_000_000), None)
    return tmp_path / "run"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a fake artifact of the recipe `test`."""
    model = tmp_path / "m.fake"
    model.write_text(json.dumps({"latency_ms": 0.1, "logits": [[1, 0]]}))
    preprocessing = Preprocessing(4, 4)
    manifest = Manifest(sha256_file(model), model.stat().st_size, "fake", "float32", "x", (None, 3, 4, 4), "y",
                        preprocessing, ("a", "b"), recipe="test")  # fmt: skip
    artifact = Artifact(model, manifest)
    artifact.save_manifest()
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    sample = evalset.write(tmp_path / "sample", pixels, np.asarray([0, 1]), ("a", "b"), ("a", "b"), preprocessing)
    write_bundle(artifact, Target("pi", runtime="fake"), tmp_path / "sample", sample, tmp_path / "b.tar")
    return tmp_path / "b.tar"


Calls = list[tuple[str, Board]]


@pytest.fixture
def deployments(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record (name, board) of each deployment in place of connecting."""
    calls: Calls = []

    def deploy(bundle: Path, name: str, board: Board, known_hosts: Path | None, console: object) -> Deployed:
        calls.append((name, board))
        return Deployed(name, artifact_sha256="0" * 64, copied=(), verified="verified", measurement={})

    monkeypatch.setattr(boards_cli.deployment, "deploy", deploy)
    monkeypatch.setattr(boards_cli.deployment, "store", lambda folder, deployed: None)
    return calls


def test_a_bundle_holds_the_artifact_of_the_target(run: Path, tmp_path: Path) -> None:
    model = run / "artifacts" / "model-int8.onnx"
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["images"], ["m"]), helper.make_node("Flatten", ["m"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
    preprocessing = Preprocessing(8, 8)
    manifest = Manifest(sha256_file(model), model.stat().st_size, "onnx", "int8", "images", (None, 3, 8, 8), "logits",
                        preprocessing, ("a", "b", "c"))  # fmt: skip
    Artifact(model, manifest).save_manifest()
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    evalset.write(run / "sample", pixels, np.asarray([0, 1]), ("x", "y"), ("a", "b", "c"), preprocessing)
    result = call("bundle", run, "-o", tmp_path / "out.tar")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'out.tar'} (" in result.stdout
    assert result.stdout.endswith("MB): model-int8.onnx for target 'board'\n")
    with tarfile.open(tmp_path / "out.tar") as opened:
        assert "model-int8.onnx" in {Path(name).name for name in opened.getnames()}


def test_a_bundle_of_an_unknown_target_is_one_line(run: Path, tmp_path: Path) -> None:
    result = call("bundle", run, "--target", "vax", "-o", tmp_path / "out.tar")
    assert_one_line(result, 2, "vax")
    assert not (tmp_path / "out.tar").exists()


def test_a_bundle_of_a_folder_without_report_is_one_line(tmp_path: Path) -> None:
    assert_one_line(call("bundle", tmp_path, "-o", tmp_path / "out.tar"), 2, "report.json: no such file")


def test_options_override_the_inventory(run: Path, bundle: Path, tmp_path: Path, deployments: Calls) -> None:
    (tmp_path / "boards.yaml").write_text("orin: {host: 10.0.0.8, user: me, python: /opt/python}")
    arguments = ("deploy", bundle, "orin", "--run", run, "--inventory", tmp_path / "boards.yaml")
    assert call(*arguments).exit_code == 0
    assert call(*arguments, "--python", "python3.12").exit_code == 0
    assert [(name, board.host, board.python) for name, board in deployments] == [
        ("orin", "10.0.0.8", "/opt/python"),
        ("orin", "10.0.0.8", "python3.12"),
    ]


def test_an_address_is_named_by_its_host(run: Path, bundle: Path, deployments: Calls) -> None:
    result = call("deploy", bundle, "pi@192.168.1.20", "--run", run)
    assert result.exit_code == 0, result.output
    assert f"report: {run / 'report.html'}" in result.stdout
    assert deployments[0][0] == "192.168.1.20"


def test_the_run_folder_is_that_of_the_recipe(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployments: Calls
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(call("deploy", bundle, "pi@board"), 2, "runs/test/report.json: no such file")
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / "test")
    assert call("deploy", bundle, "pi@board").exit_code == 0


@pytest.mark.parametrize(("board", "part"), [("nowhere", "nowhere"), ("me@..", "name the board in an inventory")])
def test_a_board_that_is_no_address_is_one_line(
    run: Path, bundle: Path, deployments: Calls, board: str, part: str
) -> None:
    assert_one_line(call("deploy", bundle, board, "--run", run), 2, part)
    assert deployments == []
