"""Tests of finding a network in the content of a file of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.networks.matching import Expected, choose, left_out
from compress.networks.weight_files import Content
from runtimes.errors import InputError


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


STATE = dict(network().state_dict())
OTHER = {name: value + 1 for name, value in STATE.items()}
EXPECTED = Expected.of(network(), 3)


def chosen(content: object, key: str | None = None, expected: Expected = EXPECTED) -> str:
    return choose(Content.of(content), expected, key)[0].path


def refused(content: object, key: str | None = None, expected: Expected = EXPECTED) -> str:
    with pytest.raises(InputError) as caught:
        choose(Content.of(content), expected, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "container", ["state_dict", "model", "model_state_dict", "net", "network", "params", "weights", "module", "a.b"]
)
@pytest.mark.parametrize("prefix", ["", "model.", "backbone.", "_orig_mod.", "module.", "net.", "module._orig_mod."])
def test_any_container_and_one_common_prefix_are_found(container: str, prefix: str) -> None:
    content = {"epoch": 3, container: prefixed(prefix, STATE), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    assert chosen(content) == f"{container}.{prefix}".rstrip(".")


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("state_dict", "ema_state_dict"),
        ("params", "params_ema"),
        ("model", "averaged_model"),
        ("model", "swa_model"),
        ("model_state", "shadow"),
        ("net", "EMA"),
    ],
)
def test_averaged_weights_are_used_and_a_key_chooses(raw: str, averaged: str) -> None:
    content = {raw: STATE, averaged: {"n_averaged": torch.tensor(5), **prefixed("module.", OTHER)}}
    best, others = choose(Content.of(content), EXPECTED, None)
    assert best.averaged
    assert best.path == f"{averaged}.module"
    assert [other.path for other in others] == [raw]
    assert torch.equal(best.tensors["4.bias"], OTHER["4.bias"])
    assert chosen(content, raw) == raw
    assert chosen(content, averaged) == chosen(content, f"{averaged}.module") == f"{averaged}.module"


def test_averaged_weights_beside_raw_ones_in_one_mapping() -> None:
    content = {"state_dict": {**prefixed("net.", STATE), **prefixed("ema_net.module.", OTHER)}}
    assert chosen(content) == "state_dict.ema_net.module"
    assert chosen(content, "state_dict.net") == "state_dict.net"


@pytest.mark.parametrize("names", [("student", "teacher"), ("best", "last"), ("ema_fast", "ema_slow")])
def test_several_candidates_are_listed_unless_a_key_chooses(names: tuple[str, str]) -> None:
    content = {names[0]: STATE, names[1]: OTHER}
    assert refused(content) == (
        f"holds several networks that fit: '{names[0]}', '{names[1]}'; choose one with weights_key"
    )
    assert chosen(content, names[1]) == names[1]


def test_a_name_that_only_contains_the_letters_is_not_averaged() -> None:
    assert "weights_key" in refused({"model": STATE, "schema": OTHER})


def test_a_candidate_of_another_shape_does_not_count() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    assert chosen({"teacher": wide.state_dict(), "student": STATE}) == "student"


def test_an_unknown_key_names_those_of_the_file() -> None:
    message = refused({"state_dict": STATE, "ema": OTHER}, "model")
    assert message == "weights_key: there is no 'model' in the file; it has state_dict, ema"


def test_averaged_parameters_without_statistics_do_not_fit() -> None:
    parameters = {name: value for name, value in OTHER.items() if "running" not in name}
    content = {"state_dict": STATE, "ema": parameters}
    assert chosen(content) == "state_dict"
    assert left_out(Content.of(content), choose(Content.of(content), EXPECTED, None)[0]) == {"ema": 7}
    assert "2 tensors missing (1.running_mean, 1.running_var)" in refused(content, "ema")


def test_names_that_do_not_fit_are_shown_with_those_of_the_file() -> None:
    message = refused({"state_dict": prefixed("x.", {"conv.weight": STATE["0.weight"], "bn.weight": torch.ones(4)})})
    assert message == (
        "belongs to another network: 8 tensors missing (0.weight, 0.bias, 1.weight, 1.bias, …), 2 unknown "
        "(state_dict.x.conv.weight, state_dict.x.bn.weight); the file holds state_dict.x.conv.weight, "
        "state_dict.x.bn.weight"
    )


def test_a_surplus_tensor_of_the_network_is_refused_but_not_one_beside_it() -> None:
    assert "1 unknown (5.weight)" in refused({**STATE, "5.weight": torch.zeros(1)})
    state = {**prefixed("model.", STATE), "criterion.weight": torch.ones(3), "model.n_averaged": torch.tensor(3)}
    content = {"state_dict": state, "optimizer": {"state": {0: {"a": torch.zeros(1), "b": torch.zeros(1)}}}}
    best, _ = choose(Content.of(content), EXPECTED, None)
    assert left_out(Content.of(content), best) == {
        "state_dict.criterion": 1, "state_dict.model.n_averaged": 1, "optimizer": 2
    }  # fmt: skip


@pytest.mark.parametrize("classes", [1, 2, 1000])
def test_a_classifier_of_another_size_is_replaced(classes: int) -> None:
    best, _ = choose(Content.of(network(classes).state_dict()), EXPECTED, None)
    assert best.replaced == ("4.weight", "4.bias")


def test_a_convolution_can_be_the_classifier_and_there_can_be_several() -> None:
    def conv(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, classes, 1), nn.Flatten())

    def heads(classes: int) -> nn.Module:
        return nn.ModuleDict(
            {"head": nn.Linear(4, classes), "head_dist": nn.Linear(4, classes), "conv": nn.Conv2d(3, 4, 1)}
        )

    best, _ = choose(Content.of(conv(9).state_dict()), Expected.of(conv(3), 3), None)
    assert best.replaced == ("1.weight", "1.bias")
    best, _ = choose(Content.of(heads(9).state_dict()), Expected.of(heads(3), 3), None)
    assert best.replaced == ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")


def test_a_layer_inside_is_no_classifier_though_it_has_as_many_outputs() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 3))
    other = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1), nn.Flatten(), nn.Linear(3, 3))
    assert "tensors of other shapes: 3, for example 0.weight" in refused(
        other.state_dict(), expected=Expected.of(inner, 3)
    )


def test_a_file_without_the_classifier_is_of_the_network_without_its_head() -> None:
    content = prefixed("backbone.", {name: value for name, value in STATE.items() if not name.startswith("4.")})
    best, _ = choose(Content.of({**content, "head.fc.weight": torch.zeros(9, 4)}), EXPECTED, None)
    assert best.replaced == ("4.weight", "4.bias")
    assert "1 tensors missing (4.bias)" in refused({name: value for name, value in STATE.items() if name != "4.bias"})


def test_a_network_without_weighted_layers_is_no_crash() -> None:
    best, _ = choose(
        Content.of({"weight": torch.ones(2), "bias": torch.ones(2)}), Expected.of(nn.LayerNorm(2), 3), None
    )
    assert not best.replaced


def test_smaller_tensors_fit_where_the_file_is_of_a_pruned_network() -> None:
    narrow = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    pruned = Expected.of(network(), 3, narrower=True)
    assert not choose(Content.of(narrow.state_dict()), pruned, None)[0].replaced
    assert "tensors of other shapes" in refused(narrow.state_dict())
    larger = Expected.of(narrow, 3, narrower=True)
    assert "0.weight is (4, 3, 3, 3) and must be (2, 3, 3, 3)" in refused(STATE, expected=larger)
    for classes in (2, 7):
        best, _ = choose(Content.of(narrow.state_dict()), Expected.of(network(classes), classes, narrower=True), None)
        assert best.replaced == ("4.weight", "4.bias")
