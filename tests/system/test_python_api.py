"""The Python API: its import, its types, and the notebook of its document."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documents import blocks

import compress
from compress.report.report import Report

SLOW = ("torch", "onnx", "onnxruntime", "pydantic", "yaml", "rich", "PIL", "numpy")


def test_importing_compress_imports_nothing_else() -> None:
    code = f"import compress, json, sys; dir(compress); print(json.dumps([n for n in {SLOW!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("name", ["check", "measure"])
def test_functions_without_training_import_no_torch(name: str) -> None:
    code = f"import compress, sys; compress.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_function_is_documented_with_all_its_arguments() -> None:
    assert {*compress.__all__} <= {*dir(compress)}
    for name in compress.__all__:
        function = getattr(compress, name)
        for argument in inspect.signature(function).parameters:
            assert f"    {argument}: " in (function.__doc__ or ""), (name, argument)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'compress' has no attribute 'quantise'"):
        compress.quantise  # type: ignore[attr-defined]  # noqa: B018


def test_the_notebook_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cells = blocks("compress/README.md", "python")
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "cell", "exec"), names)
    output = capsys.readouterr().out
    assert "small-float32.onnx" in output
    assert "seed: must be a valid integer" in output
    report, pruned, module = names["second"], names["pruned"], names["module"]
    assert isinstance(report, Report)
    assert report.folder == Path("runs/second")
    assert isinstance(pruned, torch.nn.Module)
    assert isinstance(module, torch.nn.Module)
    assert module.training  # as it was
    assert sum(value.numel() for value in pruned.parameters()) < sum(value.numel() for value in module.parameters())
