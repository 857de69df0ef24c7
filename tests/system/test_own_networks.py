"""The examples of compress/models/README.md: a network in a file, and one in a package, from recipe to report."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
import yaml
from command_line import call
from documents import blocks
from packages import install

from compress.recipe import own_code

README = "compress/models/README.md"
NAMED = re.compile(r"# (\S+\.\w+)\n")


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write each block that begins with the name of a file into a folder, and go there."""
    monkeypatch.chdir(tmp_path)
    for language in ("python", "yaml", "toml"):
        for block in blocks(README, language):
            if name := NAMED.match(block):
                path = tmp_path / name[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(block)
    yield tmp_path
    own_code.use(())


def faster(recipe: Path) -> None:
    """Shorten the measurement of a recipe, which is not what the example is about."""
    content = yaml.safe_load(recipe.read_text())
    content |= {"timing": {"warmup": 1, "blocks": 2, "runs_per_block": 2, "sessions": 1}}
    for stage in content["stages"]:
        if "epochs" in stage:
            stage["epochs"] = 1
    recipe.write_text(yaml.safe_dump(content))


def test_a_network_in_a_file_goes_through_the_whole_pipeline_and_resumes_from_its_copy(examples: Path) -> None:
    faster(examples / "my_net.yaml")
    (command,) = (block for block in blocks(README, "shell") if "--code my_net.py" in block)
    done = call(*shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    run = examples / "runs/my_net"
    [sha256] = {file.sha256 for file in own_code.files()}
    report = json.loads((run / "report.json").read_text())
    assert [row["precision"] for row in report["rows"]] == ["float32", "float32", "int8"]  # baseline, pruned, INT8
    assert f"my_net:build is code of my_net.py, sha256 {sha256}" in report["notes"]
    for entry in report["artifacts"]:
        network = entry["lineage"][0]
        assert (network["arch"], network["width"]) == ("my_net:build", 24)
        assert network["code"] == {"owner": "my_net.py", "sha256": sha256}
    again = call("run", run / "recipe.yaml", "--out", run, "--code", run / "code/my_net.py", "--dry-run")
    assert "steps are reused" in again.output, again.output


def test_a_package_registers_a_network(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((examples / "pyproject.toml").read_text())["project"]
    install(examples, project["name"], project["version"], {"acme_nets/__init__.py": ""}, project["entry-points"])
    monkeypatch.syspath_prepend(str(examples))
    listed = call("list", "models")
    assert "Acme's network for small cameras. (package acme-nets 1.0)" in listed.output
    faster(examples / "acme.yaml")
    done = call("run", "acme.yaml")
    assert done.exit_code == 0, done.output
    assert "acme_net is code of acme-nets 1.0, sha256 " in done.output
    for name in [name for name in sys.modules if name.startswith("acme_nets")]:
        del sys.modules[name]
