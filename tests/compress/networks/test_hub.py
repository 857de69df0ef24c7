"""Weights of the Hugging Face Hub: names, choice of the file, cache, and errors. Nothing is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub import errors

from compress.networks import hub, sources
from runtimes.errors import InputError, UnavailableError

RESPONSE: Any = SimpleNamespace(headers={}, request=None)
HTTP_ERROR = errors.HfHubHTTPError.__bases__[0]  # of the HTTP library that this version of the package uses
Cache = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Return a function that puts files of a repository into an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def add(repository: str, *files: str) -> Path:
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / "abc"
        for file in files:
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).write_bytes(b"weights")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        return snapshot

    return add


def answer(monkeypatch: pytest.MonkeyPatch, files: list[str] | Exception) -> None:
    def model_info(api: object, repository: str) -> Any:
        if isinstance(files, Exception):
            raise files
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: f"/cache/{repository}/{file}")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.bin", "model.safetensors", "other.safetensors"], "model.safetensors"),
        (["README.md", "net.safetensors", "pytorch_model.bin"], "net.safetensors"),
        (["pytorch_model.bin", "other.pth"], "pytorch_model.bin"),
        (["training_args.bin", "optimizer.pt", "sub/weights.ckpt"], "sub/weights.ckpt"),
    ],
)
def test_safetensors_are_preferred(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, files: list[str], chosen: str
) -> None:
    answer(monkeypatch, files)
    assert hub.download("hf:me/net") == Path("/cache/me/net") / chosen
    hub.require("hf:me/net")


@pytest.mark.parametrize(
    ("weights", "files", "message"),
    [
        ("hf:me/net", ["a.pth", "b.pth"], "holds several files of weights: a.pth, b.pth; choose one, as in "),
        ("hf:me/net", ["README.md"], "holds no file of weights"),
        ("hf:me/net/x.pth", ["a.pth"], "has no file x.pth; it has a.pth"),
    ],
)  # fmt: skip
def test_an_unclear_choice_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, weights: str, files: list[str], message: str
) -> None:
    answer(monkeypatch, files)
    with pytest.raises(InputError) as caught:
        hub.require(weights)
    assert str(caught.value).startswith(f"weights: {weights}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", ["hf:", "hf:net", "hf:me/", "hf:me/net/../x", "hf:/net", "hf:a b/c"])
def test_other_names_are_refused(weights: str) -> None:
    for function in (hub.cached, hub.require, hub.download):
        with pytest.raises(InputError, match="must be hf:OWNER/NAME or hf:OWNER/NAME/FILE, as in hf:timm/"):
            function(weights)


@pytest.mark.parametrize(
    "error", [HTTP_ERROR("no route"), ConnectionResetError("reset"), errors.OfflineModeIsEnabled("offline")]
)
def test_without_a_network_the_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, error: Exception
) -> None:
    answer(monkeypatch, error)
    for function in (hub.require, hub.download):
        with pytest.raises(UnavailableError) as caught:
            function("hf:me/net")
        assert str(caught.value).startswith(
            f"weights: hf:me/net: is not in the cache and can't be downloaded ({error})"
        )


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        (errors.RepositoryNotFoundError, InputError, "the Hugging Face hub has no such"),
        (errors.GatedRepoError, UnavailableError, "is a gated repository"),
    ],
)
def test_an_unknown_or_gated_repository_is_said(
    monkeypatch: pytest.MonkeyPatch, cache: Cache, kind: Any, expected: type[Exception], message: str
) -> None:
    answer(monkeypatch, kind("404", response=RESPONSE))
    with pytest.raises(expected, match=f"weights: hf:me/net: {message}"):
        hub.require("hf:me/net")


def test_a_file_in_the_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    answer(monkeypatch, HTTP_ERROR("no route"))
    snapshot = cache("me/net", "model.safetensors", "config.json")
    hub.require("hf:me/net")
    assert hub.cached("hf:me/net") == sources.weights_file("hf:me/net") == snapshot / "model.safetensors"
    assert hub.cached("hf:me/net/config.json") == snapshot / "config.json"
    assert hub.cached("hf:me/net/other.pth") is None
    assert hub.cached("hf:me/other") is None


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnavailableError, match=r"needs a package: pip install huggingface_hub$"):
        hub.require("hf:me/net")
