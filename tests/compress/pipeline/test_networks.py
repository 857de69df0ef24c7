from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from consoles import RecordingConsole
from networks import Branches, branched
from torch import nn

from compress.models import mobilenet_v2
from compress.networks import checkpoint
from compress.pipeline import networks as module
from compress.pipeline.images import RunImages
from compress.pipeline.networks import Networks, resolve_device, train_networks
from compress.pipeline.steps import Steps
from compress.recipe import plugins
from compress.recipe.recipe import Recipe
from compress.training.context import Context
from runtimes import environment
from runtimes.errors import InputError, UnavailableError
from runtimes.target import Target

TRAIN, QAT, PRUNE = {"stage": "train"}, {"stage": "qat"}, {"stage": "prune", "macs": 0.5}
Run = Callable[..., Networks]


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """Replace what stages do by a change of one weight, and give the contexts that they got."""
    seen: list[Context] = []

    def run(network: nn.Module, context: Context, config: Any) -> nn.Module:
        seen.append(context)
        with torch.no_grad():
            next(network.parameters()).add_(1.0)
        return network

    real = plugins.load

    def load(kind: Any, name: str) -> Any:
        plugin = real(kind, name)
        return SimpleNamespace(**{**vars(plugin), "run": run}) if kind == "stages" else plugin

    monkeypatch.setattr(module.plugins, "load", load)
    return seen


@pytest.fixture
def run(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> Run:
    """Give a function that trains the networks of a small recipe, in one folder."""

    def run_recipe(*stages: dict[str, Any], **sections: Any) -> Networks:
        recipe = make_recipe(stages=list(stages), **sections)
        steps = new_steps()
        return train_networks(recipe, steps, make_images(steps))

    return run_recipe


@pytest.fixture
def start_file(tmp_path: Path) -> Path:
    """Weights of a network of three classes."""
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.25), 3)
    checkpoint.save(tmp_path / "weights", network)
    return tmp_path / "weights" / checkpoint.WEIGHTS_FILE


def touch(path: Path) -> None:
    """Write other weights of the same size, with the same time of change."""
    before = path.stat()
    tensors, _ = checkpoint.load_tensors(path)
    checkpoint.save_tensors(path, {name: tensor + 1 for name, tensor in tensors.items()}, {})
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_each_stage_gets_the_network_before_and_knows_its_past(run: Run, contexts: list[Context]) -> None:
    result = run(TRAIN, QAT)
    assert [network.name for network in result.checkpoints] == ["network", "0-train", "1-qat"]
    assert [[stage.stage for stage in network.stages] for network in result.checkpoints] == [
        [], ["train"], ["train", "qat"]
    ]  # fmt: skip
    first = [float(next(network.load().parameters()).ravel()[0].detach()) for network in result.checkpoints]
    np.testing.assert_allclose(np.diff(first), 1.0, atol=1e-6)
    assert [context.name for context in contexts] == ["0-train", "1-qat"]
    assert result.unpruned is None
    assert [network.name for network in result.evaluated] == ["0-train", "1-qat"]


def test_stages_are_reused_by_a_later_run(run: Run, contexts: list[Context]) -> None:
    first, second = run(TRAIN, QAT), run(TRAIN, QAT)
    assert len(contexts) == 2
    assert second.final.folder == first.final.folder


def test_a_changed_stage_repeats_itself_and_what_follows(run: Run, contexts: list[Context]) -> None:
    run(TRAIN, QAT)
    run(TRAIN, {**QAT, "epochs": 2})
    assert [context.name for context in contexts] == ["0-train", "1-qat", "1-qat"]


def test_calibration_images_do_not_repeat_training(run: Run, contexts: list[Context]) -> None:
    run(TRAIN)
    run(TRAIN, quantize={"calibration_images": 4})
    assert len(contexts) == 1


def test_the_network_before_pruning_is_kept_without_the_later_stages(run: Run, contexts: list[Context]) -> None:
    result = run(TRAIN, PRUNE, QAT)
    assert result.unpruned is not None
    assert [stage.stage for stage in result.unpruned.stages] == ["train"]
    assert [stage.stage for stage in result.final.stages] == ["train", "prune", "qat"]


def test_a_stage_sees_train_and_val_only(run: Run, contexts: list[Context]) -> None:
    run(TRAIN)
    (context,) = contexts
    assert len(context.prepared("val").names) > 0
    assert len(context.subset("train", 5).names) == 5
    with pytest.raises(KeyError):
        context.prepared("test")


def test_a_stage_gets_the_target_that_it_measures_on(run: Run, contexts: list[Context]) -> None:
    targets = [{"name": "one"}, {"name": "two", "threads": 2}]
    run(TRAIN, {"stage": "prune", "latency": 0.5, "target": "two"}, targets=targets)
    assert [context.target for context in contexts] == [None, Target("two", threads=2)]


def test_replaced_weights_of_a_teacher_repeat_the_stage(run: Run, contexts: list[Context], start_file: Path) -> None:
    teacher = {"network": {"arch": "mobilenet_v2", "width": 0.25, "weights": str(start_file)}}
    run({"stage": "distill", "teacher": teacher})
    touch(start_file)
    run({"stage": "distill", "teacher": teacher})
    assert len(contexts) == 2


def test_replaced_starting_weights_repeat_everything_though_size_and_time_are_the_same(
    run: Run, contexts: list[Context], start_file: Path
) -> None:
    model = {"arch": "mobilenet_v2", "width": 0.25, "weights": str(start_file)}
    first = run(TRAIN, model=model)
    assert [network.name for network in first.evaluated] == ["network", "0-train"]
    touch(start_file)
    second = run(TRAIN, model=model)
    assert second.checkpoints[0].folder != first.checkpoints[0].folder
    assert len(contexts) == 2


def test_the_same_weights_elsewhere_repeat_nothing(
    run: Run, contexts: list[Context], start_file: Path, tmp_path: Path
) -> None:
    shutil.copy(start_file, tmp_path / "copy.safetensors")
    for path in (start_file, tmp_path / "copy.safetensors"):
        run(TRAIN, model={"arch": "mobilenet_v2", "width": 0.25, "weights": str(path)})
    assert len({context.folder for context in contexts}) == len(contexts) == 1


NET = {"arch": "mobilenet_v2", "width": 0.25}


def saved(path: Path, classes: int) -> str:
    torch.save({"state_dict": mobilenet_v2.build(mobilenet_v2.Config(width=0.25), classes).state_dict()}, path)
    return str(path)


def test_notes_of_weights_are_given_by_a_cached_run_too(run: Run, contexts: list[Context], tmp_path: Path) -> None:
    model = {**NET, "weights": saved(tmp_path / "net.ckpt", 1000)}
    first, second = run(TRAIN, model=model), run(TRAIN, model=model)
    assert len(contexts) == 1
    assert first.notes == second.notes
    assert [network.name for network in first.evaluated] == ["0-train"]  # nothing is said of a random classifier
    (note,) = first.notes
    assert note.endswith("its classifier has 1000 outputs; classifier.1.weight, classifier.1.bias start from random "
                         "values for 3 classes")  # fmt: skip


def test_notes_are_shown(
    make_recipe: Callable[..., Recipe], new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages],
    contexts: list[Context],
) -> None:  # fmt: skip
    for _ in range(2):
        steps = new_steps()
        result = train_networks(make_recipe(stages=[]), steps, make_images(steps))
        assert result.notes == (
            "model: random weights, and no stage trains them: accuracy and agreement mean nothing, latency does",
        )
        assert isinstance(steps.console, RecordingConsole)
        assert result.notes[0] in steps.console.said


def test_a_random_classifier_is_not_exported_in_place_of_weights(
    run: Run, contexts: list[Context], tmp_path: Path
) -> None:
    model = {**NET, "weights": saved(tmp_path / "net.ckpt", 1000)}
    for stages in ([], [PRUNE], [{**TRAIN, "freeze": ["classifier"]}]):
        with pytest.raises(InputError, match=r"no stage trains the random classifier \(classifier\.1\); add a stage"):
            run(*stages, model=model)
    assert not contexts


def test_a_teacher_is_loaded_before_the_first_stage_and_given_to_its_own(
    run: Run, contexts: list[Context], start_file: Path
) -> None:
    section = {**NET, "weights": str(start_file)}
    run(TRAIN, {"stage": "distill", "teacher": {"network": section}})
    teacher = contexts[1].teacher(mobilenet_v2.Config(**section))
    tensors, _ = checkpoint.load_tensors(start_file)
    assert all(torch.equal(value, tensors[name]) for name, value in teacher.state_dict().items())


def test_a_teacher_of_other_classes_is_refused_before_any_stage(
    run: Run, contexts: list[Context], tmp_path: Path
) -> None:
    teacher = {"network": {**NET, "weights": saved(tmp_path / "net.ckpt", 1000)}}
    with pytest.raises(InputError, match=r"^teacher: weights: .*net\.ckpt: belong to other classes, so the teacher's"):
        run(TRAIN, {"stage": "distill", "teacher": teacher})
    assert not contexts


def test_a_pruned_network_starts_and_teaches_a_new_recipe(run: Run, contexts: list[Context], tmp_path: Path) -> None:
    pruned = run(TRAIN, PRUNE, QAT).final  # the stages are replaced here: the file is only marked
    assert checkpoint.is_pruned(pruned.folder)
    section = {**NET, "weights": str(pruned.folder / checkpoint.WEIGHTS_FILE)}
    again = run({"stage": "distill", "teacher": {"network": section}}, model=dict(section))
    assert [note.rpartition(": is of ")[2] for note in again.notes] == [
        "a pruned network: 0 tensors are smaller than those of the section `model`"
    ] * 2
    assert checkpoint.is_pruned(again.checkpoints[0].folder)
    assert checkpoint.is_pruned(again.final.folder)
    assert not checkpoint.is_pruned(run(TRAIN).final.folder)


@pytest.fixture
def branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the recipe's network have branches."""
    monkeypatch.setattr(mobilenet_v2, "build", lambda config, classes: branched(classes))


@pytest.mark.usefixtures("branches")
def test_branches_are_fused_before_qat_and_before_export(run: Run, contexts: list[Context]) -> None:
    networks = run(TRAIN, PRUNE, QAT)
    assert [each.name for each in networks.checkpoints] == ["network", "0-train", "1-prune", "fuse", "2-qat"]
    assert [type(each.load()[1]).__name__ for each in networks.checkpoints] == [*["Branches"] * 3, *["Conv2d"] * 2]
    assert networks.unpruned is not None
    assert networks.unpruned.name == "fuse-baseline"
    assert "Conv2d" in type(networks.unpruned.load()[1]).__name__
    assert networks.notes[-1].startswith("fuse: 4 layers with 11,")
    assert "became 3 layers" in networks.notes[-1]
    assert isinstance(contexts[2].teacher("baseline")[1], Branches)
    assert [each.name for each in run(TRAIN).checkpoints] == ["network", "0-train", "fuse"]


@pytest.mark.usefixtures("branches")
def test_the_file_of_a_fused_network_starts_a_new_recipe(run: Run, contexts: list[Context]) -> None:
    first = run(TRAIN).final
    again = run(TRAIN, QAT, model={**NET, "weights": str(first.folder / checkpoint.WEIGHTS_FILE)})
    assert [each.name for each in again.checkpoints] == ["network", "0-train", "1-qat"]
    assert checkpoint.is_fused(again.final.folder)


def test_a_fusion_that_is_not_exact_is_refused_before_any_stage(
    run: Run, contexts: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mobilenet_v2, "build", lambda config, classes: branched(classes, Branches(scale=0.9)))
    with pytest.raises(InputError, match="fusing Branches is not exact"):
        run(TRAIN)
    assert not contexts


def test_a_budget_that_cannot_be_met_is_refused_before_any_stage(run: Run, contexts: list[Context]) -> None:
    with pytest.raises(InputError, match=r"the budget can't be met: at least 0\.\d+ of the baseline's cost remains"):
        run(TRAIN, {"stage": "prune", "macs": 0.01})
    assert not contexts


def test_qat_for_another_processors_scheme_is_another_step(
    run: Run, contexts: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for instructions in ("x86-avx2", "x86-vnni", "x86-avx2"):
        monkeypatch.setattr(environment, "detect_instruction_set", lambda *_, name=instructions: name)
        folders.append(run(TRAIN, QAT).final.folder)
    assert folders[0] == folders[2] != folders[1]


def test_fewer_cores_repeat_no_stage(run: Run, contexts: list[Context], monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(environment.os, "sched_getaffinity"):
        pytest.skip("this system has no CPU affinity")
    stages = (TRAIN, {"stage": "prune", "latency": 0.5})
    run(*stages)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda process: {0})
    run(*stages)
    assert len(contexts) == 2


def test_predictions_are_those_of_the_network(
    run: Run, contexts: list[Context], new_steps: Callable[[], Steps], make_images: Callable[[Steps], RunImages]
) -> None:
    network, steps = run(TRAIN).final, new_steps()
    images = make_images(steps).of("test")
    found = module.predictions_on(steps, network, images, "cpu")
    batch = torch.from_numpy(np.concatenate(list(images.load().batches(64))))
    with torch.inference_mode():
        assert found == network.load()(batch).argmax(1).tolist()


def test_a_device_is_resolved_without_torch_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_cuda_driver", lambda: False)
    assert (resolve_device("cpu"), resolve_device("auto")) == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match="torch finds no GPU on this machine; set device: cpu or auto"):
        resolve_device("cuda")


def test_a_device_is_the_gpu_where_torch_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_cuda_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert resolve_device("auto") == "cuda"
