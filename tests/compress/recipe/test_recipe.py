from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from compress.data import synthetic
from compress.models import mobilenet_v2
from compress.recipe import plugins, recipe, shipped
from compress.recipe.recipe import Recipe
from compress.recipe.renamed import RenamedKeyWarning
from runtimes.errors import InputError
from runtimes.target import DataSheet, runtime_names

ROOT = Path(__file__).parents[3]
SHIPPED = list(shipped.recipes().values())
SHEET = {"device": "mine", "float32_tflops": 1, "bandwidth_gb_per_s": 9.5, "launch_overhead_us": 2}
LEAST: dict[str, Any] = {"data": {"name": "synthetic"}, "model": {"arch": "mobilenet_v2"}}


def write(folder: Path, content: dict[str, Any] | str, name: str = "r") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def problems(folder: Path, content: dict[str, Any] | str, *overrides: str) -> list[str]:
    path = write(folder, content)
    with pytest.raises(InputError) as caught:
        recipe.load(path, overrides)
    lines = str(caught.value).splitlines()
    assert all(line.startswith((f"{path}: ", "--set ")) for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


@pytest.mark.parametrize(
    "change",
    [
        {"gate": {"max_drop_pp": 1}, "stages": [{"stage": "prune", "macs": 0.5}]},
        {"gate": {"max_drop_pp": 1}, "quantize": {}},
        {"gate": {"max_drop_pp": 1}, "targets": [{"name": "gpu", "provider": "cuda"}]},  # has a float16 file, too
        {"gate": {"min_recall": {"a": 0.8}}},
    ],
)
def test_a_gate_that_has_something_to_judge_is_accepted(tmp_path: Path, change: dict[str, Any]) -> None:
    assert recipe.load(write(tmp_path, {**LEAST, **change})).gate is not None


def test_the_old_name_of_the_limit_on_the_drop_works_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, {**LEAST, "quantize": {}, "gate": {"max_top1_drop_pp": 2}})
    with pytest.warns(RenamedKeyWarning, match="gate: 'max_top1_drop_pp' is now called 'max_drop_pp'"):
        loaded = recipe.load(path)
    assert loaded.gate is not None
    assert (loaded.gate.max_drop_pp, loaded.gate.metric) == (2, "top1")


def test_the_least_recipe_is_filled_with_defaults(tmp_path: Path) -> None:
    loaded = recipe.load(write(tmp_path, LEAST, "my-net"))
    assert loaded.name == "my-net"
    assert loaded.data == synthetic.Config()
    assert loaded.model == mobilenet_v2.Config()
    assert loaded.stages == ()
    assert (loaded.quantize, loaded.gate) == (None, None)
    assert [target.name for target in loaded.targets] == ["local"]


def test_a_recipe_is_frozen(tmp_path: Path) -> None:
    loaded = recipe.load(write(tmp_path, LEAST))
    with pytest.raises(ValidationError, match="frozen"):
        loaded.seed = 3  # type: ignore[misc]


SECTIONS = (
    "data, device, export, gate, max_unreadable_images, model, name, preprocessing, quantize, seed, stages, targets, "
    "timing, tracking"
)
MODELS = "alexnet, efficientnet_lite, inception_v3, mobilenet_v2, mobilenet_v3, resnet, timm, vgg"

NOTHING_TO_COMPARE = (
    "gate: target 'local' has one artifact only, so there is nothing to compare; add the section quantize or a stage "
    "prune, or set min_accuracy or min_recall only"
)
WRONG: list[tuple[dict[str, Any], str]] = [
    # unknown keys
    ({"modle": 1}, "modle: unknown key; did you mean 'model'?"),
    ({"zzz": 1}, f"zzz: unknown key; choose from {SECTIONS}"),
    ({"data": {"name": "synthetic", "clases": 3}}, "data.clases: unknown key; did you mean 'classes'?"),
    ({"model": {"arch": "mobilenet_v2", "widht": 1}}, "model.widht: unknown key; did you mean 'width'?"),
    ({"model": {"arch": "resnet", "zzz": 1}}, "model.zzz: unknown key; choose from arch, depth, weights, weights_key"),
    ({"preprocessing": {"rezise": 3}}, "preprocessing.rezise: unknown key; did you mean 'resize'?"),
    ({"stages": [{"stage": "train", "epoch": 3}]}, "stages.0.epoch: unknown key; did you mean 'epochs'?"),
    (
        {"stages": [{"stage": "train", "augment": {"hflipp": True}}]},
        "stages.0.augment.hflipp: unknown key; did you mean 'hflip'?",
    ),
    ({"seed": True}, "seed: must be a valid integer, unable to parse string as an integer, not true"),
    ({"targets": [{"name": "a", "thread": 3}]}, "targets.0.thread: unknown key; did you mean 'threads'?"),
    ({"timing": {"block": 3}}, "timing.block: unknown key; did you mean 'blocks'?"),
    ({"quantize": {"metod": "nncf"}}, "quantize.metod: unknown key; did you mean 'method'?"),
    ({"export": {"opsett": 18}}, "export.opsett: unknown key; did you mean 'opset'?"),
    (
        {"gate": {"max_top1_drop": 1}, "quantize": {}},
        "gate.max_top1_drop: unknown key; did you mean 'max_drop_pp'?",
    ),
    # names of plug-ins
    ({"model": {"arch": "mobilenetv2"}}, "model.arch: there is no 'mobilenetv2'; did you mean 'mobilenet_v2'?"),
    ({"model": {"arch": "squeezenet"}}, f"model.arch: there is no 'squeezenet'; choose from {MODELS}"),
    ({"model": {"width": 1}}, "model: needs the key 'arch'"),
    ({"data": {"name": "sintetic"}}, "data.name: there is no 'sintetic'; did you mean 'synthetic'?"),
    ({"data": {}}, "data: needs the key 'name'"),
    ({"stages": [{"stage": "trian"}]}, "stages.0.stage: there is no 'trian'; did you mean 'train'?"),
    ({"stages": [{"stage": "train"}, {"epochs": 1}]}, "stages.1: needs the key 'stage'"),
    # types
    (
        {"timing": {"blocks": True}},
        "timing.blocks: must be a valid integer, unable to parse string as an integer, not true",
    ),
    (
        {"preprocessing": {"std": [0.5, True, 0.5]}},
        "preprocessing.std.1: must be a valid number, unable to parse string as a number, not true",
    ),
    (
        {"targets": [{"name": "a", "threads": False}]},
        "targets.0.threads: must be a valid integer, unable to parse string as an integer, not false",
    ),
    (
        {"stages": [{"stage": "train", "lr_scale": {"classifier": True}}]},
        "stages.0.lr_scale.classifier: must be a valid number, unable to parse string as a number, not true",
    ),
    ({"seed": "abc"}, 'seed: must be a valid integer, unable to parse string as an integer, not "abc"'),
    ({"seed": 1.5}, "seed: must be a valid integer, got a number with a fractional part, not 1.5"),
    (
        {"stages": [{"stage": "train", "epochs": "many"}]},
        'stages.0.epochs: must be a valid integer, unable to parse string as an integer, not "many"',
    ),
    ({"device": "tpu"}, "device: must be 'auto', 'cpu' or 'cuda', not \"tpu\""),
    ({"model": {"arch": "resnet", "depth": 34}}, "model.depth: must be 18 or 50, not 34"),
    ({"model": {"arch": "resnet", "weights": 5}}, "model.weights: must be a valid string, not 5"),
    ({"targets": [{"runtime": "ort"}]}, "targets.0.name: is required"),
    # ranges
    ({"seed": -1}, "seed: must be greater than or equal to 0, not -1"),
    ({"max_unreadable_images": 2}, "max_unreadable_images: must be less than or equal to 1, not 2"),
    ({"model": {"arch": "mobilenet_v2", "width": 0}}, "model.width: must be greater than 0, not 0"),
    ({"stages": [{"stage": "train", "lr": 0}]}, "stages.0.lr: must be greater than 0, not 0"),
    ({"stages": [{"stage": "train", "lr": float("nan")}]}, "stages.0.lr: must be a finite number, not NaN"),
    (
        {"stages": [{"stage": "train", "epochs": 2, "warmup_epochs": 3}]},
        "stages.0: warmup_epochs: must be less than epochs: 2, not 3; set both, or remove warmup_epochs",
    ),
    (
        {"stages": [{"stage": "train", "augment": {"crop_scale": [1, 0.5]}}]},
        "stages.0.augment: crop_scale: must be [least, greatest], not [1.0, 0.5]",
    ),
    (
        {"preprocessing": {"crop": [48, 192, 3]}},
        "preprocessing.crop: must be one side in pixels, or [height, width], of 1 to 4096, not [48, 192, 3]",
    ),
    (
        {"preprocessing": {"crop": "48x192"}},
        "preprocessing.crop: must be one side in pixels, or [height, width], of 1 to 4096, not '48x192'",
    ),
    (
        {"preprocessing": {"resize": 40, "crop": [48, 192]}},
        "preprocessing: must have 1 <= crop <= resize <= 4096, not crop 48x192 and resize 40",
    ),
    (
        {"preprocessing": {"channels": 1, "mean": [0.5, 0.5, 0.5]}},
        "preprocessing: mean: has 3 values, and channels: 1 has 1; give one number",
    ),
    (
        {"preprocessing": {"std": [0.2, 0.2]}},
        "preprocessing: std: has 2 values, and channels: rgb has 3; give one number, or a list of 3",
    ),
    (
        {"preprocessing": {"channels": 2}},
        "preprocessing.channels: must be 'rgb', 'grey', 'rgba', 1, 3 or 4, not 2",
    ),
    (
        {"preprocessing": {"channels": True}},
        "preprocessing.channels: must be 'rgb', 'grey', 'rgba', 1, 3 or 4, not true",
    ),
    (
        {"preprocessing": {"resize": 32, "crop": 64}},
        "preprocessing: must have 1 <= crop <= resize <= 4096, not crop 64 and resize 32",
    ),
    ({"preprocessing": {"std": [0, 1, 1]}}, "preprocessing: must have a std above 0, not 0.0"),
    (
        {"preprocessing": {"mean": [123.675, 116.28, 103.53]}},
        "preprocessing: must have a mean in 0 to 1, not 123.675, 116.28, 103.53; pixels are divided by 255 first, so "
        "divide by 255 what is meant for 0 to 255: 0.485, 0.456, 0.406",
    ),
    (
        {"timing": {"blocks": 1}},
        "timing: must have 0 to 10000 warm-up runs, 2 to 10000 blocks and 1 to 10000 runs per block",
    ),
    (
        {"targets": [{"name": "a", "threads": 0}]},
        "targets.0: must have 1 to 1024 threads and a batch of 1 to 4096",
    ),
    (
        {"targets": [{"name": "a b"}]},
        "targets.0: must have a name of letters, digits, '-', '_' and '.', not 'a b'",
    ),
    ({"export": {"opset": 3}}, "export.opset: must be greater than or equal to 18, not 3"),
    ({"quantize": {"calibration_images": 0}}, "quantize.calibration_images: must be greater than or equal to 1, not 0"),
    (
        {"gate": {"max_size_ratio": 1, "confidence": 1}, "quantize": {}},
        "gate.confidence: must be less than 1, not 1",
    ),
    (
        {"stages": [{"stage": "train", "batch_size": 6, "accumulate": 4}]},
        "stages.0: accumulate: 4 parts are too many for batch_size: 6; each part needs at least two images",
    ),
    # sections that don't fit
    (
        {"data": {"name": "imagefolder"}},
        "data: needs root, train or test; for example --set data.root=/data/flowers",
    ),
    (
        {"gate": {}, "quantize": {}},
        "gate: a gate needs at least one of max_drop_pp, min_recall, min_agreement, min_accuracy, "
        "min_speedup_p50, max_size_ratio",
    ),
    (
        {"targets": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
        "targets: must have different names, not a, b, a",
    ),
    ({"gate": {"max_size_ratio": 1}}, NOTHING_TO_COMPARE),
    (
        {"gate": {"max_drop_pp": 1}, "stages": [{"stage": "train"}, {"stage": "distill"}]},
        NOTHING_TO_COMPARE,
    ),
    (
        {"gate": {"max_drop_pp": 1}, "targets": [{"name": "local"}, {"name": "gpu", "provider": "cuda"}]},
        NOTHING_TO_COMPARE,
    ),
    (
        {"gate": {"min_recall": {True: 0.5}}},
        "gate.min_recall: write the class name in quotes; YAML reads it as True",
    ),
    ({"gate": {"min_recall": {"a": 2}}}, "gate.min_recall.a: must be less than or equal to 1, not 2"),
    ({"export": {"batch": 4}}, "export.batch: must be dynamic or 1, the batch of target 'local'"),
    (
        {"export": {"batch": 4}, "targets": [{"name": "a", "batch": 4}, {"name": "b", "batch": 8}]},
        "export.batch: must be dynamic or 8, the batch of target 'b'",
    ),
    (
        {"stages": [{"stage": "prune", "latency": 0.5, "target": "board"}], "targets": [{"name": "a"}]},
        "stages.0.target: there is no target 'board'; choose from a",
    ),
]


@pytest.mark.parametrize(("change", "line"), WRONG, ids=[line[:60] for _, line in WRONG])
def test_a_wrong_value_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    assert problems(tmp_path, {**LEAST, **change}) == [line]


def test_runtimes_that_there_are_are_named(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, {**LEAST, "targets": [{"name": "a", "runtime": "npu"}]})
    assert line == f"targets.0: must have a runtime of {', '.join(runtime_names())}, not 'npu'"


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    content = {
        "data": {"name": "synthetic", "sizes": 3},
        "model": {"arch": "squeezenet"},
        "seed": -1,
        "stages": [{"stage": "train", "epochs": 0, "lr": -1}, {"stage": "nope"}],
        "targets": [{"name": "a"}, {"name": "a b"}, {}],
    }
    assert sorted(problems(tmp_path, content)) == sorted(
        [
            "seed: must be greater than or equal to 0, not -1",
            "data.sizes: unknown key; did you mean 'size'?",
            f"model.arch: there is no 'squeezenet'; choose from {MODELS}",
            "stages.0.epochs: must be greater than or equal to 1, not 0",
            "stages.0.lr: must be greater than 0, not -1",
            f"stages.1.stage: there is no 'nope'; choose from {', '.join(plugins.names('stages'))}",
            "targets.1: must have a name of letters, digits, '-', '_' and '.', not 'a b'",
            "targets.2.name: is required",
        ]
    )


def test_missing_sections_are_reported(tmp_path: Path) -> None:
    assert problems(tmp_path, {"seed": 1}) == ["data: is required", "model: is required"]


def test_beyond_twenty_problems_are_counted(tmp_path: Path) -> None:
    lines = problems(tmp_path, {f"key{index}": 1 for index in range(1000)})
    assert len(lines) == 21
    assert lines[-1] == "and 982 more"  # data and model are missing, too


def test_all_problems_between_sections_are_reported_at_once(tmp_path: Path) -> None:
    content = {**LEAST, "gate": {"max_size_ratio": 1}, "export": {"batch": 4}}
    assert len(problems(tmp_path, content)) == 2


@pytest.mark.parametrize("wrong", [0, "many"])
def test_a_wrong_export_batch_is_one_problem(tmp_path: Path, wrong: object) -> None:
    assert len(problems(tmp_path, {**LEAST, "export": {"batch": wrong}})) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"stages": {"stage": "train"}},
        {"targets": 5},
        {"targets": []},
        {"preprocessing": 5},
        {"preprocessing": {"mean": "grey"}},
        {"data": "synthetic"},
        {"data": None},
        {"stages": ["train"]},
        {"name": "a/b"},
    ],
    ids=str,
)
def test_a_wrong_shape_is_reported_in_terms_of_yaml(tmp_path: Path, change: dict[str, Any]) -> None:
    (line,) = problems(tmp_path, {**LEAST, **change})
    assert not [word for word in ("tuple", "Tuple", "object", "instance", "dictionary", "pattern") if word in line]


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (("stages.0.epochs=7",), 7),
        (("stages.0.epochs=7", "stages.0.epochs=8"), 8),
        (("stages.0={stage: train, epochs: 5}",), 5),
        (("stages=[{stage: train, epochs: 6}]",), 6),
    ],
)
def test_overrides_reach_into_lists(tmp_path: Path, assignments: tuple[str, ...], expected: int) -> None:
    path = write(tmp_path, {**LEAST, "stages": [{"stage": "train", "epochs": 9}]})
    assert recipe.load(path, assignments).stages[0].epochs == expected


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [(("stages.0.epochs=3",), 1), (("stages.0.epochs=8",), 3), (("stages.0.epochs=20",), 9),
     (("stages.0.warmup_epochs=2", "stages.0.epochs=3"), 2)],
)  # fmt: skip
def test_fewer_epochs_of_an_override_shorten_the_warm_up_of_the_file(
    tmp_path: Path, assignments: tuple[str, ...], expected: int
) -> None:
    path = write(tmp_path, {**LEAST, "stages": [{"stage": "train", "epochs": 60, "warmup_epochs": 9}]})
    assert recipe.load(path, assignments).stages[0].warmup_epochs == expected


def test_a_warm_up_of_an_override_is_not_shortened(tmp_path: Path) -> None:
    path = write(tmp_path, {**LEAST, "stages": [{"stage": "train", "epochs": 60}]})
    with pytest.raises(InputError, match="warmup_epochs: must be less than epochs: 3, not 5"):
        recipe.load(path, ["stages.0.warmup_epochs=5", "stages.0.epochs=3"])


def test_an_override_may_use_the_old_or_the_new_name_of_a_renamed_key(tmp_path: Path) -> None:
    path = write(tmp_path, {**LEAST, "quantize": {"method": "compress"}})
    with pytest.warns(RenamedKeyWarning, match="'engine' is now called 'method'"):
        loaded = recipe.load(path, ["quantize.engine=nncf"])
    assert loaded.quantize
    assert loaded.quantize.method == "nncf"
    path = write(tmp_path, {**LEAST, "quantize": {"engine": "compress"}})
    assert recipe.load(path, ["quantize.method=nncf"]) == loaded


def test_overrides_make_sections_that_are_not_there(tmp_path: Path) -> None:
    loaded = recipe.load(write(tmp_path, LEAST), ["quantize.method=nncf", "gate.max_size_ratio=0.5", "name=other"])
    assert loaded.quantize
    assert loaded.gate
    assert (loaded.name, loaded.quantize.method, loaded.gate.max_size_ratio) == ("other", "nncf", 0.5)


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("stages.1.epochs=5", "--set stages.1.epochs=5: '1' must be an index from 0 to 0"),
        ("stages.last.epochs=5", "--set stages.last.epochs=5: 'last' must be an index from 0 to 0"),
        ("stages.0.epoch=5", "stages.0.epoch: unknown key; did you mean 'epochs'?"),
        ("stage.0.epochs=5", "--set stage.0.epochs=5: there is no list 'stage' with an item 0"),
        ("data.name.x=2", "--set data.name.x=2: the value 'synthetic' has no key 'x'"),
        ("seed", "--set seed: must be key=value, for example --set stages.0.epochs=3"),
        ("seed=1=2", 'seed: must be a valid integer, unable to parse string as an integer, not "1=2"'),
    ],
)
def test_a_wrong_override_is_reported_like_a_wrong_recipe(tmp_path: Path, assignment: str, line: str) -> None:
    assert problems(tmp_path, {**LEAST, "stages": [{"stage": "train"}]}, assignment) == [line]


@pytest.mark.parametrize("section", ["stages.0.epochs=3", "targets.0.threads=2"])
def test_an_override_of_an_item_that_is_not_there_is_quoted(tmp_path: Path, section: str) -> None:
    assert problems(tmp_path, LEAST, section)[0].startswith(f"--set {section}: ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("seed: 1\nseed: 2\n", "not valid YAML in line 2: duplicate key 'seed'"),
        ("data: &d {name: elpv}\nmodel: *d\n", "not valid YAML in line 2: aliases (*name) are not allowed"),
        (
            "data:\n  name: !foo elpv\n",
            "not valid YAML in line 2: tags (!name) are not allowed",
        ),
    ],
)
def test_yaml_that_hides_mistakes_is_refused_with_its_line(tmp_path: Path, content: str, line: str) -> None:
    assert problems(tmp_path, content) == [line]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_survives_its_own_writing(tmp_path: Path, path: Path) -> None:
    loaded = recipe.load(path)
    assert loaded.name == path.stem
    assert recipe.load(write(tmp_path, loaded.to_yaml(), "other")) == loaded


def test_a_resolved_recipe_names_every_default(tmp_path: Path) -> None:
    content = {
        **LEAST,
        "data": {"name": "imagefolder", "test": "/data/photos", "classes": "imagenet"},
        "stages": [{"stage": "train", "augment": {"crop_scale": [0.5, 1]}, "ema_decay": 0.9}],
        "quantize": {},
        "gate": {"max_size_ratio": 0.5},
        "export": {"batch": 1},
    }
    loaded = recipe.load(write(tmp_path, content))
    written = yaml.safe_load(loaded.to_yaml())
    assert list(written) == list(Recipe.model_fields)
    assert set(written["stages"][0]) == set(type(loaded.stages[0]).model_fields)
    assert written["data"]["classes"] == "imagenet"
    assert recipe.load(write(tmp_path, loaded.to_yaml())) == loaded


def test_targets_may_be_named(tmp_path: Path) -> None:
    own = write(tmp_path, {"threads": 3, "datasheet": SHEET}, "my-board")
    loaded = recipe.load(write(tmp_path, {**LEAST, "targets": ["desktop-cpu", str(own), {"name": "here"}]}))
    assert [(target.name, target.threads) for target in loaded.targets] == [
        ("desktop-cpu", 1),
        ("my-board", 3),
        ("here", 1),
    ]
    assert loaded.targets[1].datasheet == DataSheet(**SHEET)
    assert recipe.load(write(tmp_path, loaded.to_yaml())) == loaded


def test_problems_of_named_targets_are_reported_with_all_others(tmp_path: Path) -> None:
    own = write(tmp_path, {"thread": 3, "datasheet": {**SHEET, "cores": 0}}, "my-board")
    content = {**LEAST, "seed": -1, "targets": ["desktop-gpu", "vax", "none.yaml", str(own), {"name": "a", "batch": 0}]}
    names = ", ".join(shipped.targets())
    assert problems(tmp_path, content) == [
        "seed: must be greater than or equal to 0, not -1",
        "targets.0: 'desktop-gpu' is neither a known target nor the path of a YAML file; did you mean 'desktop-cpu'?",
        f"targets.1: 'vax' is neither a known target nor the path of a YAML file; choose from {names}",
        "targets.2: no such file: 'none.yaml'",
        f"targets.3: {own}: datasheet: must have a number above 0 (efficiencies: at most 1) for cores; "
        f"{own}: thread: unknown key; did you mean 'threads'?",
        "targets.4: must have 1 to 1024 threads and a batch of 1 to 4096",
    ]


def test_torch_is_not_loaded_to_check_a_recipe_or_to_judge() -> None:
    modules = [
        "compress.cli.main",
        "compress.recipe.recipe",
        "compress.verdict.gate",
        "compress.report.report",
        "compress.pipeline.run",
    ]
    script = (
        "import importlib, json, sys\n"
        f"loaded = {{}}\nfor name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = sorted({'torch', 'torchvision', 'onnx', 'timm', 'nncf'} & set(sys.modules))\n"
        f"from pathlib import Path\nfrom compress.recipe import recipe\nrecipe.load(Path({str(SHIPPED[0])!r}))\n"
        "loaded['load'] = sorted({'torch', 'torchvision', 'onnx', 'timm', 'nncf'} & set(sys.modules))\n"
        "print(json.dumps(loaded))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(result.stdout) == {name: [] for name in [*modules, "load"]}
