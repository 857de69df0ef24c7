"""Tests of reading files of weights: formats by content, nested content, refusals."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.networks import weight_files
from runtimes.errors import InputError

STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin", "a.ckpt", "A.PT", "a"])
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_the_format_is_recognized_by_content(tmp_path: Path, name: str, form: str) -> None:
    if form == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=form == "zip")
    content = weight_files.read(tmp_path / name)
    torch.testing.assert_close(content.tensors, STATE)
    assert not content.containers


def test_nested_content_has_dotted_paths(tmp_path: Path) -> None:
    value = {"epoch": 3, "state_dict": STATE, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "lr": [0.1]},
             "shadow": [torch.zeros(1)], "text": "x"}  # fmt: skip
    torch.save(value, tmp_path / "a.ckpt")
    content = weight_files.read(tmp_path / "a.ckpt")
    assert list(content.tensors) == ["state_dict.fc.weight", "state_dict.fc.bias", "optimizer.state.0.step", "shadow.0"]
    assert {"state_dict", "optimizer.state.0", "shadow"} <= content.containers


def test_content_that_holds_itself_or_is_very_deep_ends() -> None:
    loop: dict[str, Any] = {"a": torch.zeros(1)}
    loop["self"] = loop
    deep: Any = torch.zeros(1)
    for _ in range(5000):
        deep = [deep]
    assert list(weight_files.Content.of({"loop": loop, "deep": deep}).tensors) == ["loop.a"]


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (np.float64(0.9), r"numpy\._core\.multiarray\.scalar"),
        (np.zeros(2), r"numpy\._core\.multiarray\._reconstruct"),
        (collections.defaultdict(list), "collections.defaultdict"),
        (Path("x"), r"pathlib\.[\w.]+Path"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    ],
    ids=["namespace", "numpy scalar", "numpy array", "defaultdict", "path", "module"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_an_object_that_is_no_tensor_is_refused_by_its_class(
    tmp_path: Path, extra: object, name: str, zipped: bool
) -> None:
    torch.save({"model": STATE, "extra": extra}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    expected = rf"contains an object of Python, {name}, besides tensors; it was not executed; if you trust the file, "
    with pytest.raises(InputError, match=rf"a\.pth: {expected}save its tensors alone: torch\.save\(torch\.load\(FILE"):
        weight_files.read(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"is a TorchScript archive, .*torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        weight_files.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a pointer of Git LFS, .*run git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", r"neither a safetensors file .*begins with '<!DOCTYPE html>'"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0\0\0\0\0", "neither a safetensors file nor one of torch.save, or damaged$"),
        (b"PK\x03\x04", "contains objects other than tensors, or is damaged"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no tensors"),
    ],
    ids=["empty", "git lfs", "html", "hdf5", "zip", "no tensors"],
)
def test_another_file_is_named_for_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        weight_files.read(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_single_tensor_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: holds a single tensor, not the named tensors of a network$"):
        weight_files.read(tmp_path / "a.pth")


def test_a_zip_of_something_else_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weight=np.ones(2))
    with pytest.raises(InputError, match=r"a\.npz: is a zip archive, but none of torch\.save; unpack it"):
        weight_files.read(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [{"a": 1}, ["x"], 3])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: holds no tensors$"):
        weight_files.read(tmp_path / "a.pth")


def test_metadata_of_safetensors_is_kept(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", {"pruned": "true"})
    assert weight_files.read(tmp_path / "a.safetensors").metadata == {"pruned": "true"}
