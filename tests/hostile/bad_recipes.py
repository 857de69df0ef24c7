"""Recipes with a wrong value at every path, and YAML that is not a recipe."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml
from case import ROOT, Case, leaves, put, written

from compress.recipe import recipe

WRONG_LEAVES = ({"no such": 1}, [[[]]])


def recipes(folder: Path) -> Iterator[Case]:
    """Yield recipes with a wrong value at every path, and YAML that is not a recipe."""
    for name, content in {**dict(_wrong_values()), **YAML_TEXTS}.items():
        path = folder / f"{len(content)}-{zlib.crc32(name.encode())}.yaml"
        yield Case(name, folder, ["validate", str(written(path, content))], path.name, content)


def code(folder: Path) -> Iterator[Case]:
    """Yield recipes that name code which the command line does not name, beside files that would leave a trace."""
    evil = b"import pathlib\npathlib.Path(__file__).with_name('evil').touch()\ndef build(num_classes): pass\n"
    for name in ("my_net.py", "elsewhere/my_net.py", "code/my_net.py", "my_net/__init__.py"):
        written(folder / name, evil)
    harmless = written(folder / "harmless.py", HARMLESS)
    for index, name in enumerate((*CODE_NAMES, "elsewhere.my_net:build", "code.my_net:build")):
        text = yaml.safe_dump({"data": {"name": "elpv"}, "model": {"arch": name}}).encode()
        path = written(folder / f"code-{index}.yaml", text)
        for options in ([], ["--code", str(harmless)]):
            for command in (["validate"], ["run", "--out", str(folder / "run")]):
                arguments = [*command, str(path), *options]
                yield Case(f"{name} {options}", folder, arguments, path.name, text + str(arguments).encode())
    for name in NOT_DEFINED:
        model = {"arch": f"harmless:{name}", "command": "x"}
        text = yaml.safe_dump({"data": {"name": "elpv"}, "model": model}).encode()
        path = written(folder / f"function-{name}.yaml", text)
        yield Case(name, folder, ["validate", str(path), "--code", str(harmless)], path.name, text)
    for name in ("no.py", "code", "elsewhere", "harmless.yaml"):
        yield Case(name, folder, ["validate", "smoke", "--code", str(folder / name)], name, name.encode())


def sweeps(folder: Path) -> Iterator[Case]:
    """Yield wrong sweeps of a valid recipe."""
    small = written(folder / "small.yaml", LEAST)
    for index, text in enumerate(SWEEPS):
        path = written(folder / f"sweep-{index}.yaml", text.replace("RECIPE", str(small)).encode())
        yield Case(text[:60], folder, ["sweep", str(path), "--out", str(folder / "out")], path.name, text.encode())


def inventories(folder: Path) -> Iterator[Case]:
    """Yield wrong inventories, for a bundle that does not exist."""
    run = ROOT / "tests/samples/schema-1"
    for index, text in enumerate(INVENTORIES):
        path = written(folder / f"boards-{index}.yaml", text.encode())
        arguments = ["deploy", str(folder / "no.tar"), "orin", "--run", str(run), "--inventory", str(path)]
        yield Case(text[:60], folder, arguments, path.name, text.encode())


HARMLESS = b"""from os import system
from subprocess import run as build
import torch
opener = open
def small(num_classes, depth: int = 1): return None
def no_network(command): system('touch evil')
class Settings: pass
"""
NOT_DEFINED = ("system", "build", "opener", "torch", "no_network", "small", "Settings", "exec", "__builtins__", "smal")
SWEEPS = (
    "", "[]", "12", "recipe: 3", "recipe: RECIPE", "{recipe: RECIPE, vary: 3}", "{recipe: RECIPE, vary: {}}",
    "{recipe: RECIPE, vary: {seed: []}}", "{recipe: RECIPE, vary: {seed: {low: 5, high: 1}}, method: random}",
    "{recipe: RECIPE, vary: {seed: {low: 1, high: 5}}}", "{recipe: RECIPE, vary: {no: [1]}}",
    "{recipe: RECIPE, vary: {seed: [1, x]}}", "{recipe: RECIPE, vary: {seed: [1]}, trials: 99999999999}",
    "{recipe: RECIPE, vary: {seed: [1]}, method: random, trials: yes}", '{recipe: RECIPE, vary: {"": [1]}}',
    "{recipe: RECIPE, vary: {seed: [1]}, objectives: []}", "{recipe: RECIPE, vary: {seed: [1]}, objectives: [price]}",
    "{recipe: RECIPE, vary: {seed: [1]}, target: nowhere}", "{recipe: /dev/zero, vary: {seed: [1]}}",
    "{recipe: ../../../etc/passwd, vary: {seed: [1]}}", "{recipe: RECIPE, vary: {seed: [1]}, vary: {seed: [2]}}",
    "{recipe: RECIPE, vary: &a {seed: [*a]}}", "{recipe: RECIPE, vary: !!python/object/apply:os.system [id]}",
    "{recipe: RECIPE, vary: {seed: [.nan]}}", "{recipe: RECIPE, vary: {stages.7.lr: [1]}}", "x" * (1 << 21),
)  # fmt: skip
INVENTORIES = (
    "", "[]", "orin", "orin: 3", "orin: {}", "orin: {host: 3}", "orin: {host: a, port: x}", "orin: {host: a, port: 0}",
    "orin: {host: a, port: 99999999}", "orin: {host: a, shell: sh}", "orin: &a [*a]",
    "orin: {host: a}\norin: {host: b}",
    '!!python/object/apply:os.system ["id"]', "orin: {host: a, identity: [1]}", "x" * (1 << 21),
)  # fmt: skip


def _wrong_values() -> Iterator[tuple[str, bytes]]:
    whole = recipe.load(ROOT / "recipes/mobilenet_int8.yaml").model_dump(mode="json")
    for path, _ in leaves(whole):
        for wrong in WRONG_LEAVES:
            changed = copy.deepcopy(whole)
            put(changed, path, wrong)
            yield f"{'.'.join(map(str, path))} is {wrong}", yaml.safe_dump(changed).encode()


LEAST = b"data: {name: elpv}\nmodel: {arch: mobilenet_v2}\n"
CODE_NAMES = (
    "os:system", "my_net:build", "subprocess:run", "builtins:exec", "../evil:build", "/tmp/evil.py:build", "evil.py",
    "evil:build.__globals__", "torch.hub:load", "compress.models.resnet:build", "compress.models.resnet",
    "pickle:loads", "my_net:__import__", "my_net:", ":build", "my_net:build:more", "http://a/evil.py:build",
    "~/evil:build",
)  # fmt: skip
CODE_PLACES = {
    "a model": "data: {name: elpv}\nmodel: {arch: 'NAME', command: x}\n",
    "a data set": "data: {name: 'NAME'}\nmodel: {arch: vgg}\n",
    "a stage": "data: {name: elpv}\nmodel: {arch: vgg}\nstages: [{stage: 'NAME'}]\n",
    "a teacher": "data: {name: elpv}\nmodel: {arch: vgg}\n"
    "stages: [{stage: train, teacher: {network: {arch: 'NAME', weights: a.pth}}}]\n",
}
YAML_TEXTS = {
    **{
        f"{place} that is code: {name}": text.replace("NAME", name).encode()
        for place, text in CODE_PLACES.items()
        for name in CODE_NAMES
    },
    "a key that names code": LEAST + b"code: evil.py\n",
    "a key of the model that names code": b"data: {name: elpv}\nmodel: {arch: mobilenet_v2, code: evil.py}\n",
    "empty": b"",
    "a list": b"- data\n",
    "a number": b"12\n",
    "aliases that explode": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)),
    "an alias to itself": b"a: &a [*a]\n",
    "a merge key": b"a: &a {b: 1}\nc:\n  <<: *a\n",
    "a tag that runs code": b"!!python/object/apply:os.system ['touch evil']\n",
    "a tag inside": LEAST + b"name: !!python/name:os.system\n",
    "a tag of YAML's own": LEAST + b"seed: !!int '3'\n",
    "a key twice": LEAST + b"seed: 1\nseed: 2\n",
    "a key twice, deep": b"data: {name: elpv, name: imagefolder}\nmodel: {arch: mobilenet_v2}\n",
    "a mapping for a key": b"{a: 1}: 2\n",
    "two documents": LEAST + b"---\n" + LEAST,
    "tabs": b"data:\n\tname: elpv\n",
    "never closed": b"data: {name: elpv\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "UTF-16": "name: x".encode("utf-16"),
    "zero bytes inside": b"name: a\x00b\n",
    "a bell": b"name: \x07\n",
    "binary": bytes(range(256)) * 4,
    "an archive": b"PK\x03\x04" + bytes(64),
    "nested a thousand deep": b"a: " + b"[" * 1000 + b"]" * 1000,
    "nested ten thousand deep": b"a: " + b"{a: " * 10_000 + b"}" * 10_000,
    "larger than a recipe": LEAST + b"# " + b"x" * (1 << 20),
    "a whole number of 5000 digits": LEAST + b"seed: " + b"9" * 5000 + b"\n",
    "a huge seed": LEAST + b"seed: 99999999999999999999\n",
    "not a number": LEAST + b"stages: [{stage: train, lr: .nan}]\n",
    "infinite": LEAST + b"stages: [{stage: train, lr: .inf}]\n",
    "beyond all floats": LEAST + b"stages: [{stage: train, lr: 1e999}]\n",
    "a billion epochs": LEAST + b"stages: [{stage: train, epochs: 1000000000}]\n",
    "negative": LEAST + b"stages: [{stage: train, epochs: -1}]\n",
    "a name that leaves the folder": LEAST + b"name: ../../evil\n",
    "a name that is a path": LEAST + b"name: /etc/passwd\n",
    "a name of right-to-left marks": LEAST + "name: \u202egnp\n".encode(),
    "a name with a new line": LEAST + b'name: "a\\nb"\n',
    "a stage that is a path": LEAST + b"stages: [{stage: ../../evil}]\n",
    "a stage that is a module": LEAST + b"stages: [{stage: os.system}]\n",
    "a stage with underscores": LEAST + b"stages: [{stage: __init__}]\n",
    "a model that is a module": b"data: {name: elpv}\nmodel: {arch: os.path}\n",
    "a data set that is a module": b"data: {name: os}\nmodel: {arch: mobilenet_v2}\n",
    "a runtime that is a path": LEAST + b"targets: [{name: a, runtime: ../ort}]\n",
    "a target file that is none": LEAST + b"targets: [/etc/passwd]\n",
    "a target of a device": LEAST + b"targets: [/dev/zero]\n",
    "a timestamp": LEAST + b"seed: 2001-01-01\n",
    "yes for a number": LEAST + b"seed: yes\n",
    "yes for a number of timing": LEAST + b"timing: {warmup: yes}\n",
    "no for a number in a list": LEAST + b"preprocessing: {mean: [0.5, no, 0.5]}\n",
    "on for a number of a target": LEAST + b"targets: [{name: a, batch: on}]\n",
    "an unknown key of letters that look alike": LEAST + "sееd: 1\n".encode(),
    "ten thousand unknown keys": LEAST + b"".join(b"k%d: 1\n" % index for index in range(10_000)),
}
