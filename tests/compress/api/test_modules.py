"""PyTorch modules: copies, preprocessing, and export with a check of the outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from consoles import RecordingConsole
from networks import Chain
from torch import Tensor, nn

from compress.api.modules import export, fused, logits, preprocessing_for, working_copy
from export.inputs.options import NONE_GIVEN, PreprocessingOptions
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing


class Returns(nn.Module):
    """Returns what it is told to."""

    def __init__(self, output: object) -> None:
        """Keep the output."""
        super().__init__()
        self.output = output

    def forward(self, images: Tensor) -> object:
        """Return it."""
        return self.output


def test_the_copy_is_in_eval_mode_and_the_module_unchanged() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    copied = working_copy(module)
    assert module.training
    assert not copied.training
    assert copied[0].weight is not module[0].weight  # type: ignore[index]


def test_size_and_mean_follow_from_the_arguments_then_the_images() -> None:
    network = Chain()
    usual = preprocessing_for(network, None, NONE_GIVEN)
    assert (usual.resize, usual.crop, usual.mean) == (256, 224, (0.485, 0.456, 0.406))
    assert preprocessing_for(network, (8, 8), NONE_GIVEN).crop == 8
    given = preprocessing_for(network, (8, 8), PreprocessingOptions(crop=16, mean=(0.5,)))
    assert (given.crop, given.mean) == (16, (0.5, 0.5, 0.5))


def test_a_module_of_timm_has_its_own_preprocessing() -> None:
    network = Chain()
    own = {
        "input_size": (3, 256, 256),
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    network.pretrained_cfg = own  # type: ignore[assignment]
    half = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    assert preprocessing_for(network, None, NONE_GIVEN) == Preprocessing(269, 256, "bicubic", *half)
    assert preprocessing_for(network, (95, 95), NONE_GIVEN) == Preprocessing(100, 95, "bicubic", *half)
    given = PreprocessingOptions(40, 32, "nearest", (0.1,), (0.2,))
    assert preprocessing_for(network, (8, 8), given) == Preprocessing(40, 32, "nearest", (0.1,) * 3, (0.2,) * 3)


def test_branches_are_fused_with_a_line_about_it() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.a(images) + self.b(images) if hasattr(self, "b") else self.a(images)
            return output

        def fuse(self) -> None:
            self.a.weight += self.b.weight
            self.a.bias += self.b.bias
            del self.b

    console = RecordingConsole()
    plain = Chain()
    assert fused(plain, Preprocessing(8, 8), console) is plain
    network = fused(nn.Sequential(Block(), nn.Flatten(), nn.Linear(256, 2)), Preprocessing(8, 8), console)
    assert len([module for module in network.modules() if isinstance(module, nn.Conv2d)]) == 1
    assert [line.partition(":")[0] for line in console.said] == ["fuse"]


def test_a_module_becomes_a_file_with_a_manifest(tmp_path: Path) -> None:
    network = working_copy(Chain())
    artifact = export(network, preprocessing_for(network, (8, 8), NONE_GIVEN), tmp_path / "chain.onnx")
    assert Artifact.load(artifact.path) == artifact
    assert artifact.manifest.labels == ("0", "1", "2", "3", "4")
    assert artifact.manifest.input_shape == (None, 3, 8, 8)


@pytest.mark.parametrize(("output", "kind"), [
    ((torch.zeros(2, 3),), "tuple"), (None, "NoneType"), (torch.zeros(3), r"a tensor \(3,\)"),
])  # fmt: skip
def test_a_module_must_return_one_row_per_image(output: object, kind: str) -> None:
    with pytest.raises(InputError, match=rf"must return one tensor \(N, classes\), not {kind}; wrap it"):
        logits(Returns(output), torch.zeros(2, 3, 8, 8))


def test_a_module_for_another_size_names_the_cure() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(
        InputError, match=r"module: does not take images of 3 x 8 x 8 \(.*; give arrays of its size, or"
    ):
        logits(module, torch.zeros(2, 3, 8, 8))
