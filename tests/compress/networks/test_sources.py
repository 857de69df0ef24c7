"""Tests of finding the file that `weights` names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compress.networks.sources import weights_file
from runtimes.errors import InputError

NAMES = [
    "last.ckpt",
    "model_best.pth.tar",
    "pytorch_model.bin",
    "NET.PTH",
    "Net.SafeTensors",
    "epoch=3-step=9.ckpt",
    "weights",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_a_path_whatever_its_suffix(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    assert weights_file(str(tmp_path / name)) == tmp_path / name
    monkeypatch.chdir(tmp_path)
    assert weights_file(name) == Path(name)


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "", "x" * 5000, "a\0b"])
def test_what_does_not_look_like_a_path_can_be_a_published_name(name: str) -> None:
    assert weights_file(name) is None


def test_a_missing_file_names_similar_ones(tmp_path: Path) -> None:
    (tmp_path / "model_best.PTH").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"model_best\.pth: no such file; did you mean model_best\.PTH\?$"):
        weights_file(str(tmp_path / "model_best.pth"))
    with pytest.raises(InputError, match=r"none\.ckpt: no such file$"):
        weights_file(str(tmp_path / "none.ckpt"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no such file; there is no folder {tmp_path}/deep$"):
        weights_file(str(tmp_path / "deep" / "net"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "https://example.org/net.pth",
            r"^weights: https://example\.org/net\.pth: is a URL; download the file and give",
        ),
        ("~/nets/net.pth", rf"~/nets/net\.pth: no such file; ~ is not expanded, write {Path.home()}/nets/net\.pth$"),
    ],
)
def test_a_url_and_a_tilde_are_refused_with_their_cure(weights: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        weights_file(weights)


def test_a_folder_lists_its_files_of_weights(tmp_path: Path) -> None:
    (tmp_path / "steps" / "1-prune-abc").mkdir(parents=True)
    (tmp_path / "steps" / "1-prune-abc" / "network.safetensors").touch()
    with pytest.raises(InputError, match=r"is a folder; give the path of a file; there are .*prune-abc/network\.saf"):
        weights_file(str(tmp_path))


def test_no_torch_is_imported() -> None:
    code = "import sys; import compress.networks.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
