"""Tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.models import mobilenet_v2
from compress.networks import checkpoint, weights
from runtimes.errors import InputError

MODEL = mobilenet_v2.Config(width=0.25)


def test_a_network_is_restored_bit_for_bit_in_eval_mode(tmp_path: Path) -> None:
    network = weights.create(MODEL, 3, 5).to(memory_format=torch.channels_last).train()
    checkpoint.save(tmp_path, network)
    loaded = checkpoint.load(tmp_path, MODEL, 3)
    expected = network.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_for_other_channels_are_restored(tmp_path: Path, channels: int) -> None:
    network = weights.create(MODEL, 3, 5, channels)
    checkpoint.save(tmp_path, network)
    images = torch.rand(1, channels, 32, 48)
    with torch.no_grad():
        assert torch.equal(checkpoint.load(tmp_path, MODEL, 3, channels)(images), network(images))


def test_tensors_of_any_type_and_layout_are_restored_with_their_metadata(tmp_path: Path) -> None:
    shared = torch.arange(12, dtype=torch.float32)
    tensors = {
        "half": torch.randn(3).to(torch.bfloat16),
        "integer": torch.tensor([1, -(2**62)]),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),
        "shared": shared,
        "view": shared[2:6],
        "transposed": shared.view(3, 4).T,
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    checkpoint.save_tensors(tmp_path / "state.safetensors", tensors, {"state": '{"epoch": 1, "è": "ü"}'})
    loaded, metadata = checkpoint.load_tensors(tmp_path / "state.safetensors")
    assert metadata == {"state": '{"epoch": 1, "è": "ü"}'}
    assert set(loaded) == set(tensors)
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value.detach())


def test_metadata_may_be_empty(tmp_path: Path) -> None:
    checkpoint.save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
    assert checkpoint.load_tensors(tmp_path / "a.safetensors")[1] == {}


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "step", weights.create(MODEL, 3, 0))
    assert [path.name for path in (tmp_path / "step").iterdir()] == [checkpoint.WEIGHTS_FILE]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.safetensors"
    checkpoint.save_tensors(file, {"a": torch.zeros(1)}, {})

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[:4])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_tensors(file, {"a": torch.ones(1)}, {})
    assert torch.equal(checkpoint.load_tensors(file)[0]["a"], torch.zeros(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100, None], ids=["empty", "text", "bytes", "missing"])
def test_any_other_file_is_refused_with_a_remedy(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoint.load_tensors(file)
    assert str(caught.value).startswith(f"{file}: not a safetensors file (")
    assert str(caught.value).endswith("; run with --fresh to create it again")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, weights.create(MODEL, 3, 0))
    file = tmp_path / checkpoint.WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a safetensors file"):
        checkpoint.load(tmp_path, MODEL, 3)


def test_pruned_and_fused_networks_are_restored_in_their_form(tmp_path: Path) -> None:
    model = mobilenet_v2.Config(width=0.25)
    checkpoint.save(tmp_path / "whole", weights.create(model, 3, 0))
    checkpoint.save(tmp_path / "changed", weights.create(model, 3, 0), pruned=True, fused=True)
    assert not checkpoint.is_pruned(tmp_path / "whole")
    assert not checkpoint.is_fused(tmp_path / "whole")
    assert checkpoint.is_pruned(tmp_path / "changed")
    assert checkpoint.is_fused(tmp_path / "changed")
    assert checkpoint.load(tmp_path / "changed", model, 3) is not None  # nothing is there to fuse
