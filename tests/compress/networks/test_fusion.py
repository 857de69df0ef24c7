"""Tests of the fusion of re-parameterized networks."""

from __future__ import annotations

import pytest
import timm
import torch
from networks import Branches, Tangle, branched, make_lively
from torch import Tensor, nn

from compress.networks.fusion import Fusion, fused, fused_checked, is_fusible, trained_layers
from compress.networks.layers import layer_shapes
from compress.networks.shape import take_shape
from compress.pruning.channels import find_groups
from compress.pruning.surgery import remove_units_checked
from runtimes.errors import InputError

EXAMPLE = torch.zeros(1, 3, 32, 32)
ON_NOISE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Deployable(nn.Module):
    """The same, fused in place, as the code of RepVGG's authors does."""

    def __init__(self) -> None:
        """Initialise randomly."""
        super().__init__()
        self.branches: nn.Module = Branches()
        self.fuse = nn.Identity()  # a part, not a method

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        result: Tensor = self.fuse(self.branches(x))
        return result

    def switch_to_deploy(self) -> None:
        """Replace the branches."""
        if isinstance(self.branches, Branches):
            self.branches = self.branches.fuse()


@pytest.mark.parametrize("block", [Branches(), Deployable(), nn.Sequential(Deployable())])
def test_branches_become_one_layer_with_the_same_outputs(block: nn.Module) -> None:
    trained = branched(4, block).eval()
    assert is_fusible(trained)
    after, fusion = fused_checked(trained, EXAMPLE)
    assert (fusion.layers_before, fusion.layers_after) == (4, 3)
    assert fusion.parameters_before - fusion.parameters_after == 32 * 32 + 32
    torch.testing.assert_close(after(ON_NOISE), trained(ON_NOISE))
    assert not is_fusible(after)
    assert is_fusible(trained), "the trained network stays as it is"
    assert [*trained_layers(trained, after).values()][1].endswith("wide")


def test_a_network_with_a_method_of_its_own_and_none_in_its_parts_is_fused_by_it() -> None:
    trained = Whole().eval()
    assert is_fusible(trained)
    assert isinstance(fused(trained).norm, nn.Identity)


class Whole(nn.Module):
    """Fuses its parts itself."""

    def __init__(self) -> None:
        """Initialise randomly."""
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def fuse(self) -> Whole:
        """Fold the norm."""
        self.conv, self.norm = nn.utils.fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()
        return self


def test_a_network_without_branches_is_not_fusible() -> None:
    assert not is_fusible(Tangle())


def test_a_method_that_is_not_exact_is_refused_with_the_name_of_its_class() -> None:
    with pytest.raises(InputError, match=r"outputs change by .* so fusing Branches is not exact"):
        fused_checked(branched(4, Branches(scale=0.9)).eval(), EXAMPLE)


def test_a_method_that_fails_is_refused_with_the_name_of_the_module() -> None:
    block = Branches()
    block.narrow = nn.Conv2d(32, 32, 3, padding=1)
    block.wide = nn.Conv2d(32, 32, 1)
    with pytest.raises(InputError, match=r"fuse: 1 \(Branches\) can't be fused: .*shape"):
        fused(branched(4, block))


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0", "repvit_m0_9", "repghostnet_050", "fastvit_t8"])
def test_pruned_networks_of_timm_are_fused_and_restored(name: str) -> None:
    torch.manual_seed(0)
    trained = make_lively(timm.create_model(name, num_classes=4))
    before = len(layer_shapes(trained))
    groups = find_groups(trained, EXAMPLE)
    removed = {group.name: [*range(0, group.units, 2)] for group in groups}
    pruned = remove_units_checked(trained, groups, removed, ON_NOISE)  # type: ignore[arg-type]
    after, fusion = fused_checked(pruned, EXAMPLE)
    assert fusion.layers_after <= before
    assert "became" in fusion.line()
    restored = take_shape(fused(timm.create_model(name, num_classes=4)), after.state_dict()).eval()
    torch.testing.assert_close(restored(ON_NOISE), after(ON_NOISE))


def test_the_line_of_the_report_has_layers_parameters_and_difference() -> None:
    line = Fusion(85, 41, 5_300_000, 2_100_000, 3.2e-7).line()
    assert line == ("fuse: 85 layers with 5,300,000 parameters became 41 layers with 2,100,000; outputs differ by "
                    "3e-07 of the largest one")  # fmt: skip
