"""`compress.prune`: budgets, the module it leaves alone, and arguments that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Chain
from torch import nn

import compress
from compress.networks.layers import LayerShape, count_macs, layer_shapes
from compress.pruning import latency
from compress.pruning.latency import REST, LatencyBench, LatencySample
from runtimes.errors import InputError, UnavailableError

EXAMPLE = torch.zeros(1, 3, 8, 8)
BATCH = (torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain(16)


def test_the_copy_has_the_share_of_multiplications_and_the_module_is_left_alone() -> None:
    module = chain()
    module.a.weight.requires_grad_(False)  # type: ignore[union-attr,operator]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pruned = compress.prune(module, [BATCH], macs=0.5, quiet=True, step=1)
    assert 0.4 < count_macs(pruned, EXAMPLE) / count_macs(chain(), EXAMPLE) <= 0.5
    assert module.training
    assert not pruned.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    frozen = {name for name, value in pruned.named_parameters() if not value.requires_grad}
    assert frozen == {"a.weight"}
    pruned.train()(BATCH[0]).sum().backward()  # can be trained


def test_the_plan_is_shown_on_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    compress.prune(chain(), [BATCH], macs=0.5, step=1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "multiplications / baseline: 0.500 requested" in shown.err
    compress.prune(chain(), [BATCH], macs=0.5, step=1, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_latency_is_measured_on_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts connections replaces the one of the machine."""

    def measure_copy(bench: LatencyBench, shapes: Mapping[str, LayerShape]) -> tuple[LatencySample, float]:
        costs = {name: float(shape.connections) for name, shape in shapes.items()}
        whole = sum(shape.connections for shape in bench.full.values())
        return LatencySample(shapes, sum(costs.values()) / whole, {**costs, REST: 1.0}), 1.0

    monkeypatch.setattr(latency, "SAMPLES", 6)
    monkeypatch.setattr(LatencyBench, "measure_copy", measure_copy)
    pruned = compress.prune(chain(), [BATCH], latency=0.5, step=1, quiet=True)
    before, after = (sum(shape.connections for shape in layer_shapes(net).values()) for net in (chain(), pruned))
    assert after / before == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "give either latency or macs, the share to keep"),
    ({"macs": 0.5, "latency": 0.5}, "give either latency or macs, the share to keep"),
    ({"latency": 2}, "latency: must be less than 1, not 2"),
    ({"macs": 0.5, "keeep": ["a"]}, "keeep: unknown key; did you mean 'keep'?"),
    ({"macs": 0.5, "rounds": 2}, "rounds: is for recipes only; train the pruned module yourself"),
    ({"latency": 0.5, "target": "desktop"}, "target: 'desktop' is neither a known target nor"),
])  # fmt: skip
def test_wrong_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        compress.prune(chain(), [BATCH], **settings)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


def test_a_target_that_is_not_here_is_refused() -> None:
    with pytest.raises(UnavailableError, match="target 'jetson-orin-nano' can't be measured on this machine"):
        compress.prune(chain(), [BATCH], latency=0.5, target="jetson-orin-nano")
