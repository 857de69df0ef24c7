"""Every classification CNN of torchvision: with half its channels removed, it exports and agrees with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from networks import make_lively

from compress.pruning.channels import find_groups
from compress.pruning.surgery import remove_units_checked
from export.to_onnx import INPUT_NAME, to_onnx

TRANSFORMERS = ("vit", "swin", "maxvit")
NAMES = sorted(
    name for name in torchvision.models.list_models(module=torchvision.models) if not name.startswith(TRANSFORMERS)
)
SIDE, CLASSES = 96, 10
TORCH_PRUNING_SHARE = 77 / 85  # of torchvision's networks that it supports, from its README


@pytest.fixture(scope="module")
def passed() -> Iterator[list[str]]:
    """Collect the networks that passed; the last test counts them."""
    names: list[str] = []
    yield names
    print(f"\n{len(names)} of torchvision's {len(NAMES)} classification CNNs prune, export and agree with PyTorch")


def network_named(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # initialisation takes minutes
    return make_lively(torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_half_the_channels_are_removed_and_the_file_agrees_with_torch(
    name: str, passed: list[str], tmp_path: Path
) -> None:
    network = network_named(name)
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before = sum(parameter.numel() for parameter in network.parameters())
    groups = find_groups(network, images[:1])
    rng = np.random.default_rng(0)
    removed = {group.name: rng.choice(group.units, group.units // 2, replace=False) for group in groups}
    pruned = remove_units_checked(network, groups, removed, images[:2])
    assert sum(parameter.numel() for parameter in pruned.parameters()) < 0.65 * before

    file = to_onnx(pruned, tmp_path / "pruned.onnx", SIDE, 18, None)
    session = onnxruntime.InferenceSession(file.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {INPUT_NAME: images.numpy()})
    with torch.inference_mode():
        expected = pruned(images).numpy()
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 * max(1, np.abs(expected).max()))
    passed.append(name)


@pytest.mark.slow
def test_more_networks_pass_than_torch_pruning_states(passed: list[str]) -> None:
    assert len(passed) / len(NAMES) >= TORCH_PRUNING_SHARE
