"""The commands validate, schema, explain and list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from command_line import assert_one_line, call

from compress import doctor
from compress.recipe import plugins


def test_all_problems_are_reported_at_once_each_with_its_path(recipe: Path) -> None:
    result = call("validate", recipe, "--set", "stages.0.epochs=0", "--set", "model.width=-1", "--set", "gates={}")
    assert result.exit_code == 2
    assert [line.split(": ")[2] for line in result.stderr.splitlines()] == ["model.width", "stages.0.epochs", "gates"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data: [", "not valid YAML in line 1"),
        ("- a", "must be a mapping"),
        ("seed: 1\nseed: 2", "line 2: duplicate key 'seed'"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not allowed"),
        ("a: !!python/object:os.system x", "not valid YAML in line 1"),
    ],
)
def test_yaml_that_hides_mistakes_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert_one_line(call("validate", tmp_path / "r.yaml"), 2, part)


@pytest.mark.parametrize("kind", ["models", "data", "stages", "runtimes", "recipes", "sweeps", "targets"])
def test_list_names_everything_with_a_line_about_it(kind: str) -> None:
    result = call("list", kind)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    if kind in ("models", "data", "stages"):
        assert [line.split()[0] for line in lines] == plugins.names(kind)  # type: ignore[arg-type]


def test_help_of_list_names_every_kind() -> None:
    text = " ".join(call("list", "--help").output.split())
    *others, last = get_args(doctor.Listed)
    assert f"KIND is {', '.join(others)} or {last}." in text


def test_schema_is_json_schema_that_knows_every_plugin() -> None:
    schema = json.loads(call("schema").output)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]["model"]["discriminator"]["mapping"]) == set(plugins.names("models"))


def test_a_key_is_explained_with_its_value_and_default() -> None:
    text, value, default = call("explain", "gate.max_drop_pp").output.splitlines()
    assert text.startswith("gate.max_drop_pp: percentage points of the metric below the baseline")
    assert (value, default) == ("  value: number, 0 to 100", "  default: none")


def test_a_section_is_explained_with_its_keys() -> None:
    first, *lines = call("explain", "stages.prune").output.splitlines()
    assert first.startswith("stages.prune: Removal of channels")
    assert [line.split()[0] for line in lines[:2]] == ["latency", "macs"]
    assert lines[-1] == "sections: stages.prune.fine_tune"


def test_a_choice_of_plug_ins_names_them() -> None:
    assert (
        call("explain", "stages").output.splitlines()[-1]
        == "sections: stages.distill, stages.prune, stages.qat, stages.train"
    )


def test_without_a_key_the_sections_are_listed() -> None:
    *lines, last = call("explain").output.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["name", "seed", "device", "data"]
    assert last.startswith("sections: data.elpv, ")
    assert "stages.prune" in last


def test_an_unknown_key_is_one_line() -> None:
    assert_one_line(
        call("explain", "gate.max_drop"), 2, "a recipe has no key 'gate.max_drop'; did you mean gate.max_drop_pp"
    )


def test_a_valid_recipe_is_summarized(recipe: Path) -> None:
    result = call("validate", recipe, "--set", "targets=[desktop-cpu, {name: other}]")
    first, second = result.output.splitlines()
    assert (result.exit_code, first) == (0, f"{recipe}: valid; 1 stage, 2 targets")
    assert second.startswith(f"{recipe}: preprocessing: resize ")


def test_networks_of_timm_are_listed_by_a_pattern() -> None:
    result = call("list", "models", "--timm", "*mobilenetv4*")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert max(map(len, lines.values())) <= 80
    assert "224 px  e2400_r224_in1k" in lines["mobilenetv4_conv_small"]
    assert_one_line(
        call("list", "models", "--timm", "mobilenetv44*"), 2, "--timm mobilenetv44*: timm has no such network"
    )
    assert call("list", "data", "--timm", "x").exit_code == 2


def test_weights_and_names_are_checked_too(recipe: Path, tmp_path: Path) -> None:
    missing = tmp_path / "x.pth"
    result = call("validate", recipe, "--set", f"model.weights={missing}", "--set", "stages.0.freeze=[nothing]")
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith(f"compress: {recipe}: model.weights: {missing}: no such file")
    assert second.startswith(f"compress: {recipe}: stages.0.freeze: there is no module 'nothing'")


def test_missing_files_and_folders_are_problems(recipe: Path) -> None:
    data = "{name: imagefolder, root: /no/root, calibration: /no/photos, classes: /no/classes.txt}"
    result = call("validate", recipe, "--set", f"data={data}", "--set", "model.weights=/no/weights.pth")
    assert result.exit_code == 2
    starts = [
        line.removeprefix(f"compress: {recipe}: ").partition(": no such")[0] for line in result.stderr.splitlines()
    ]
    assert starts == ["model.weights: /no/weights.pth", "data.root: /no/root", "data.calibration: /no/photos",
                      "data.classes: /no/classes.txt"]  # fmt: skip


def test_what_is_elsewhere_is_said_to_be_unchecked(recipe: Path) -> None:
    data = "data={name: imagenet, root: 's3://bucket/imagenet'}"
    result = call("validate", recipe, "--set", data, "--set", "targets=[jetson-orin-nano]")
    assert result.exit_code == 0
    assert "not checked: data.root: s3://bucket/imagenet is not on this machine" in result.output
    assert "not checked: no target can be measured on this machine" in result.output


def test_a_device_that_is_not_here_is_unchecked(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = call("validate", recipe, "--set", "device=cuda")
    assert result.exit_code == 0
    assert "not checked: device: cuda, but torch finds no GPU" in result.output


def test_a_default_is_shown_only_if_there_is_one() -> None:
    assert "default" not in call("explain", "name").output.partition("\n")[2]
    assert "  default: see its keys" in call("explain", "timing").output


def test_an_unknown_kind_is_bad_usage() -> None:
    result = call("list", "networks")
    assert result.exit_code == 2
    assert "'networks' is not one of" in result.stderr
