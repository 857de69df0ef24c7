"""Networks in Python files that the command line names with `--code`.

A recipe selects one as `arch: FILE:FUNCTION`, where FILE is the name without `.py`. The file runs only because the
command line names it; a recipe alone runs nothing. It may call public functions and classes that the file itself
defines, with the keys of its section as arguments.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, TypeAlias, get_type_hints

from pydantic import ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticUserError

from compress.recipe import foreign
from compress.recipe.names import near
from compress.recipe.section import NetworkConfig
from runtimes.errors import InputError

Build: TypeAlias = Callable[..., Any]  # returns a torch.nn.Module; not checked here, since torch loads slowly

NUM_CLASSES = "num_classes"
NAME = re.compile(r"([\w.-]+):([A-Za-z]\w*)", re.ASCII)
MODULES = "compress_code_{}"  # names in sys.modules: a file may be called like an installed package


class _AnyKeys(NetworkConfig):
    """Base of the sections of functions that take any keyword."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class CodeFile:
    """A file that was executed. content: the bytes that ran."""

    path: Path
    content: bytes
    module: ModuleType

    @property
    def sha256(self) -> str:
        """The sha256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class OwnNetwork:
    """A network as plug-ins are: the Config of its section, made of the function's signature, and `build`."""

    Config: type[NetworkConfig]
    file: CodeFile
    function: Build

    def build(self, config: NetworkConfig, num_classes: int) -> Any:  # Any: see Build
        """Call the function with the number of classes and the keys of the section."""
        keys = {name: value for name, value in config if name not in ("arch", *NetworkConfig.model_fields)}
        return self.function(num_classes=num_classes, **keys)


_files: dict[str, CodeFile] = {}
_networks: dict[str, OwnNetwork] = {}


def use(paths: Sequence[Path]) -> None:
    """Execute files, whose networks recipes may then name, in place of the files of an earlier call.

    Raises InputError for a path that is no Python file, for two files of one name, and for a file that fails.
    """
    _files.clear()
    _networks.clear()
    for path in paths:
        if path.stem in _files:
            raise InputError(f"--code {path}: there is another file '{path.stem}'; rename one")
        _files[path.stem] = _executed(path)


def files() -> list[CodeFile]:
    """Return the files of the last call of `use`."""
    return list(_files.values())


def is_name(arch: str) -> bool:
    """Return whether the name of a network is FILE:FUNCTION."""
    return NAME.fullmatch(arch) is not None


def network(arch: str) -> OwnNetwork:
    """Return the network FILE:FUNCTION; raises InputError if the command line does not name the file.

    Raises it also for a function that is not there, and for a signature that no section `model` fits.
    """
    if arch not in _networks:
        stem, _, name = arch.partition(":")
        if stem not in _files:
            raise InputError(
                f"'{arch}' is code, and code runs only if the command line names its file: add --code {stem}.py"
            )
        function = _function(_files[stem], name)
        _networks[arch] = OwnNetwork(_config(arch, function, _files[stem]), _files[stem], function)
    return _networks[arch]


def _executed(path: Path) -> CodeFile:
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"--code {path}: {'is no .py file' if path.exists() else 'no such file'}")
    content, module = path.read_bytes(), ModuleType(MODULES.format(path.stem))
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses and type hints look there
    with foreign.one_line(f"--code {path}: fails"):
        exec(compile(content, module.__file__, "exec", dont_inherit=True), vars(module))  # noqa: S102
    return CodeFile(path, content, module)


def _function(file: CodeFile, name: str) -> Build:
    """Return a function or class that the file itself defines, not one that it imports."""
    own = {
        key: value
        for key, value in vars(file.module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == file.module.__name__
    }
    if name not in own:
        public = [key for key in own if not key.startswith("_")]
        choices = near(name, public) if public else "; it defines none"
        raise InputError(f"{file.path} defines no function or class '{name}'{choices}")
    function: Build = own[name]
    return function


def _config(arch: str, function: Build, file: CodeFile) -> type[NetworkConfig]:
    """Return the section of a function: a key for each parameter, with its type and default."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [parameter for parameter in parameters if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD,
                                                                         parameter.KEYWORD_ONLY)]  # fmt: skip
    if NUM_CLASSES not in [parameter.name for parameter in named] and not takes_any:
        raise InputError(f"{arch}: has no parameter {NUM_CLASSES}; add it: the number of outputs of the network")
    keys = {name: key for parameter in named for name, key in _key(arch, parameter, file.module)}
    tag: dict[str, Any] = {"arch": (Literal[arch], arch)}
    config: type[NetworkConfig] = create_model(
        "Config", __base__=_AnyKeys if takes_any else NetworkConfig, __module__=file.module.__name__, **tag, **keys
    )
    return config


def _key(arch: str, parameter: inspect.Parameter, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the key of a parameter with its type and default, for pydantic.

    Nothing for one with a default that YAML can't express, such as a class of layers; raises InputError without one.
    """
    if parameter.name == NUM_CLASSES:
        return
    required = parameter.default is parameter.empty
    hint = _hint(parameter, module)
    is_key = not (parameter.name.startswith("_") or hasattr(NetworkConfig, parameter.name)
                  or parameter.name in NetworkConfig.model_fields or parameter.name == "arch")  # fmt: skip
    if is_key and _in_yaml(hint) and (required or _in_json(parameter.default)):
        yield parameter.name, (hint, ... if required else parameter.default)
    elif required:
        raise InputError(
            f"{arch}: its parameter '{parameter.name}' can't be a key of the section model; rename it, give it a type "
            "that YAML has, or a default"
        )


def _hint(parameter: inspect.Parameter, module: ModuleType) -> Any:
    """Return the type of a parameter; Any where there is none, or where it is imported for type checkers only."""
    if parameter.annotation is parameter.empty:
        return Any
    annotated = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return get_type_hints(annotated, vars(module), include_extras=True)[parameter.name]
    except NameError:
        return Any


def _in_yaml(hint: Any) -> bool:
    try:
        TypeAdapter(hint).json_schema()
    except PydanticUserError:
        return False
    return True


def _in_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
