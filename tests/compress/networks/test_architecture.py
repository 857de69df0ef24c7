"""Networks that are not built in are tried before any work; each kind of fault is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.models import resnet
from compress.networks import architecture
from compress.recipe import own_code, plugins
from runtimes.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = """
import torch
from torch import nn
class Good(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
class Auxiliary(Good):
    def forward(self, images): return (super().forward(images),) * 2 if self.training else super().forward(images)
class Random(Good):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.factor = torch.rand(1)
    def forward(self, images): return super().forward(images) * self.factor
class Names(Good):
    count = 0
    def __init__(self, num_classes):
        super().__init__(num_classes)
        Names.count += 1
        self.register_parameter(f'extra{Names.count}', nn.Parameter(torch.zeros(1)))
class Other(nn.Conv2d):
    def forward(self, images): return super().forward(images)
class Half(Good):
    def forward(self, images): return super().forward(images).double()
class Endless(Good):
    def forward(self, images): return super().forward(images) / 0 * 0
def fixed(num_classes): return Good(1000)
def nothing(num_classes): pass
def fails(num_classes): raise KeyError('stem')
def other_images(num_classes): return nn.Sequential(Other(4, 8, 3), Good(num_classes))
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "net.py").write_text(NETWORKS)
    own_code.use([tmp_path / "net.py"])
    yield
    own_code.use(())


def section(name: str) -> Any:
    return plugins.load("models", f"net:{name}").Config()


def test_a_network_is_built_for_the_classes() -> None:
    assert architecture.build(section("Good"), 7)(torch.zeros(1, 3, 16, 16)).shape == (1, 7)
    assert isinstance(architecture.build(resnet.Config(), 3), nn.Module)


def test_a_network_that_keeps_the_contract_is_accepted_and_leaves_the_random_numbers() -> None:
    torch.manual_seed(3)
    architecture.require_usable(section("Good"), (3, 16, 16))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    architecture.require_usable(resnet.Config(), (0, 0, 0))  # built-in ones are not tried


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fixed", r"images \(2, 3, 16, 16\) in training mode and 10 classes it returns \(2, 1000\) of torch\.float32"),
        ("nothing", r"returns a NoneType; it must return a torch\.nn\.Module"),
        ("fails", r"fails: KeyError: 'stem' \(net\.py, line \d+\)"),
        (
            "other_images",
            r"in training mode it fails: RuntimeError: .* got 3 .*\(net\.py, line \d+\)",
        ),
        ("Auxiliary", r"in training mode it returns a tuple; it must return one tensor \(2, 10\)"),
        ("Random", r"two networks with the same weights differ by"),
        ("Names", r"two calls return networks with different names of weights"),
        ("Half", r"it returns \(2, 10\) of torch\.float64; it must return \(2, 10\) of torch\.float32"),
        ("Endless", r"two networks with the same weights differ by nan"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^net:{name}: .*{message}") as caught:
        architecture.require_usable(section(name), (3, 16, 16))
    assert "\n" not in str(caught.value)
