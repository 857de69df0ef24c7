"""Files that --code names: only they run, only what they define is called, and sections fit the signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.recipe import own_code
from runtimes.errors import InputError

Code = Callable[..., Path]

SIGNATURES = """
from __future__ import annotations
from os import system
from typing import TYPE_CHECKING, Any, Callable, Literal
if TYPE_CHECKING:
    from torch import nn
    from collections.abc import Sequence
class Layer: pass
class Net:
    def __init__(self, num_classes: int, width: float = 1.0): self.made = num_classes, width
def build(num_classes: int, depth: int, kind: Literal['a', 'b'] = 'a', widths: tuple[int, ...] = (1, 2)) -> nn.Module:
    return num_classes, depth, kind, widths
def plain(num_classes, width=1.0): return num_classes, width
def anything(**keys): return keys
def layers(num_classes, layer=Layer, kind: type[Layer] = Layer, act: Callable[[], Any] = Layer, weights=None, _x=1):
    return num_classes, layer, weights
def typed(num_classes, sizes: Sequence[int] = (1,)): return sizes
def no_classes(width=1): pass
def positional(num_classes, /): pass
def needs_layer(num_classes, layer: Callable[[], Any]): pass
def needs_weights(num_classes, weights): pass
def _private(num_classes): pass
constant = 3
"""


def made(arch: str, **keys: Any) -> Any:
    network = own_code.network(f"my_net:{arch}")
    return network.build(network.Config(arch=f"my_net:{arch}", **keys), 7)


def test_a_file_runs_once_and_counts_by_the_bytes_that_ran(code: Code, tmp_path: Path) -> None:
    path = code(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\ndef build(num_classes): pass")
    own_code.network("my_net:build")
    own_code.network("my_net:build")
    assert (tmp_path / "ran").is_dir()  # a second time, mkdir would fail
    (file,) = own_code.files()
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_keys_are_arguments(code: Code) -> None:
    code(SIGNATURES)
    assert made("build", depth=3, kind="b", widths=[4, 5]) == (7, 3, "b", (4, 5))
    assert made("plain") == (7, 1.0)
    assert made("plain", width=2) == (7, 2)
    assert made("Net", width=2).made == (7, 2.0)
    assert made("anything", depth=3, flag=True) == {"num_classes": 7, "depth": 3, "flag": True}
    assert made("typed", sizes=[3]) == [3]  # a type that only type checkers import is not checked


def test_parameters_that_yaml_cannot_express_keep_their_default(code: Code) -> None:
    code(SIGNATURES)
    classes, layer, weights = made("layers", weights="file.pth")
    assert (classes, layer.__name__, weights) == (7, "Layer", None)
    fields = own_code.network("my_net:layers").Config.model_fields
    assert list(fields) == ["weights", "weights_key", "arch"]


@pytest.mark.parametrize(
    ("arch", "keys", "problem"),
    [
        ("build", {}, "depth"), ("build", {"depth": "deep"}, "depth"), ("build", {"depth": 1, "kind": "c"}, "kind"),
        ("build", {"depth": True}, "depth"), ("build", {"depth": 1, "wdith": 1}, "wdith"),
        ("layers", {"layer": "nn.ReLU"}, "layer"), ("layers", {"_x": 2}, "_x"), ("plain", {"num_classes": 3}, "num_cl"),
    ],
)  # fmt: skip
def test_wrong_keys_are_found_before_the_call(code: Code, arch: str, keys: dict[str, Any], problem: str) -> None:
    code(SIGNATURES)
    with pytest.raises(ValidationError, match=problem):
        own_code.network(f"my_net:{arch}").Config(arch=f"my_net:{arch}", **keys)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("my_net:bild", r"my_net\.py defines no function or class 'bild'; did you mean 'build'\?"),
        ("my_net:system", r"my_net\.py defines no function or class 'system'"),  # imported, not defined
        ("my_net:constant", "defines no function or class 'constant'"),
        ("my_net:no_classes", "has no parameter num_classes"),
        ("my_net:positional", "has no parameter num_classes"),
        ("my_net:needs_layer", "parameter 'layer' can't be a key"),
        ("my_net:needs_weights", "parameter 'weights' can't be a key"),
        ("os:system", "is code, and code runs only if the command line names its file: add --code os.py"),
    ],
)
def test_a_recipe_names_only_functions_that_the_file_defines(code: Code, arch: str, message: str) -> None:
    code(SIGNATURES)
    with pytest.raises(InputError, match=message):
        own_code.network(arch)


@pytest.mark.parametrize(
    "arch", ["resnet", "a:b:c", "a:", ":b", "a:b.c", "../a:b", "a/b:c", "a:__import__", "a b:c", "a:b\n"]
)
def test_other_names_are_no_code(arch: str) -> None:
    assert not own_code.is_name(arch)


@given(st.text(), st.text())
def test_without_code_no_name_runs_anything(stem: str, function: str) -> None:
    own_code.use(())
    arch = f"{stem}:{function}"
    if own_code.is_name(arch):
        with pytest.raises(InputError, match="code runs only if the command line names its file"):
            own_code.network(arch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "fails: ModuleNotFoundError: No module named 'no_such_module' (my_net.py, line 1)"),
        ("\ndef build(:", "(my_net.py, line 2)"), ("1 / 0", "fails: ZeroDivisionError: division by zero"),
        ("exit(3)", "fails: SystemExit: 3"), ("\0", "fails: "),
    ],
)  # fmt: skip
def test_a_file_that_fails_is_one_line(code: Code, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        code(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.txt").write_text("")
    (tmp_path / "folder.py").mkdir()
    for path, message in (("net.txt", "is no .py file"), ("folder.py", "is no .py file"), ("a.py", "no such file")):
        with pytest.raises(InputError, match=f"{path}: {message}"):
            own_code.use([tmp_path / path])


def test_two_files_of_one_name_are_refused(code: Code, tmp_path: Path) -> None:
    path = code("")
    with pytest.raises(InputError, match="there is another file 'my_net'; rename one"):
        own_code.use([path, path])


def test_a_file_may_be_called_like_a_package(code: Code) -> None:
    import torch

    code("def build(num_classes): return num_classes", "torch.py")
    assert own_code.network("torch:build").function(num_classes=3) == 3
    import torch as again

    assert again is torch
