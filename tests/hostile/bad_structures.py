"""Documents with dropped keys, lists in place of mappings and values of other types, in every file that is read.

Some changes leave a valid document, such as a dropped optional key: those must succeed without a traceback.
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from bad_bundles import good_bundle, packed
from case import ROOT, Case, artifact_in, evalset_in, put, written

from compress.pruning.plans import Cut, PruningPlan
from compress.recipe import recipe
from compress.report.schema import upgraded

OTHERS: tuple[Any, ...] = ([], {}, None, "text", -1, [["a"]])
SAMPLE = ROOT / "tests/samples/schema-1"


def records(folder: Path) -> Iterator[Case]:
    """Yield every kind of JSON that the toolkit writes and reads again, with one change of its structure."""
    for make in (_reports, _accepted, _manifests, _evalsets, _bundles):
        yield from make(folder / make.__name__.strip("_"))


def settings(folder: Path) -> Iterator[Case]:
    """Yield every kind of YAML that users write, with one change of its structure."""
    for make in (_recipes, _targets, _sweeps, _inventories):
        yield from make(folder / make.__name__.strip("_"))


def changes(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield a name and the changed document for each key dropped and each value replaced.

    Of lists, only the first item is changed.
    """
    for path, value in _values(document):
        where = ".".join(map(str, path))
        if isinstance(path[-1], str):
            changed = copy.deepcopy(document)
            functools.reduce(lambda content, key: content[key], path[:-1], changed).pop(path[-1])
            yield f"without {where}", changed
        as_list = [list(value.values())] if isinstance(value, dict) and value else []
        for other in (*OTHERS, *as_list):
            if other != value:
                changed = copy.deepcopy(document)
                put(changed, path, copy.deepcopy(other))
                yield f"{where} is {str(other)[:40]}", changed


def _values(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path and value of every value in nested mappings, and of the first item of each list."""
    inner: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        inner = [(0, value[0])]
    for key, item in inner:
        yield (*path, key), item
        yield from _values(item, (*path, key))


def _cases(
    document: Any, place: Callable[[int], Path], file: str, arguments: Callable[[Path], list[str]], named: str = ""
) -> Iterator[Case]:
    """Yield a case for each change; `place` makes the folder of a case, whose `file` gets the content.

    named: text that errors contain; nothing for documents that may be valid but not fit the other files.
    """
    for index, (name, changed) in enumerate(changes(document)):
        folder = place(index)
        as_yaml = file.endswith(".yaml")
        content = (yaml.safe_dump(changed) if as_yaml else json.dumps(changed)).encode()
        written(folder / file, content)
        identity = f"{arguments(Path())[:1]} {file} {len(content)} ".encode() + content
        yield Case(f"{file}: {name}", folder, arguments(folder), named, identity, may_be_right=True)


def _reports(folder: Path) -> Iterator[Case]:
    report = upgraded(json.loads((SAMPLE / "report.json").read_text()))
    cut = Cut("stem", ("stem",), 4, (0, 3), 0.25, 0.5)
    report["pruning"] = {"1-prune": [PruningPlan((cut,), "ms", 2.0, 0.5, 0.5, None).to_json()]}
    place = functools.partial(_copied, folder / "report", SAMPLE)
    yield from _cases(report, place, "report.json", lambda at: ["report", str(at)], "report.json")
    place = functools.partial(_copied, folder / "boards", SAMPLE)
    measured = report["measurements"][0]
    yield from _cases(measured, place, "boards/pi/measurement.json", lambda at: ["report", str(at)], "measurement.json")


def _accepted(folder: Path) -> Iterator[Case]:
    place = functools.partial(_copied, folder, SAMPLE)
    accepted = json.loads((SAMPLE / "accepted.json").read_text())
    check = ["check", str(SAMPLE), "--against"]
    yield from _cases(accepted, place, "accepted.json", lambda at: [*check, str(at / "accepted.json")])
    for file in ("run.json", "splits.json"):
        content = json.loads((SAMPLE / file).read_text())
        yield from _cases(content, place, file, lambda at: ["accept", str(at), "-o", str(at / "out.json")])


def _manifests(folder: Path) -> Iterator[Case]:
    manifest = json.loads(artifact_in(folder / "good").with_name("model.onnx.json").read_text())
    place = functools.partial(_copied, folder, folder / "good")
    measure = ["measure", "--blocks", "2"]
    yield from _cases(manifest, place, "model.onnx.json", lambda at: [*measure, str(at / "model.onnx")], "model.onnx")


def _evalsets(folder: Path) -> Iterator[Case]:
    evaluate = ["evaluate", str(artifact_in(folder / "model")), "--evalset"]
    description = json.loads((evalset_in(folder / "good") / "evalset.json").read_text())
    place = functools.partial(_copied, folder, folder / "good")
    yield from _cases(description, place, "evalset.json", lambda at: [*evaluate, str(at)])


def _bundles(folder: Path) -> Iterator[Case]:
    _, members = good_bundle(folder)
    for index, (name, changed) in enumerate(changes(json.loads(members["bundle.json"]))):
        content = packed({**members, "bundle.json": json.dumps(changed).encode()})
        path = written(folder / f"case-{index}" / "bundle.tar", content)
        arguments = ["deploy", str(path), "nobody@127.0.0.1:9", "--run", str(SAMPLE)]
        # the address refuses connections: a bundle that stays valid fails with it
        yield Case(f"bundle.json: {name}", path.parent, arguments, "", content)


def _recipes(folder: Path) -> Iterator[Case]:
    whole = recipe.load(ROOT / "recipes/smoke.yaml").model_dump(mode="json", exclude_defaults=True)
    whole["stages"] = [{"stage": "prune", "macs": 0.5, "limits": {"features.1*": 0.5}, "keep": ["features.2*"]}]
    place = functools.partial(_empty, folder)
    yield from _cases(whole, place, "recipe.yaml", lambda at: ["validate", str(at / "recipe.yaml")])


def _targets(folder: Path) -> Iterator[Case]:
    target = yaml.safe_load((ROOT / "recipes/targets/jetson-orin-nano.yaml").read_text())
    text = (ROOT / "recipes/smoke.yaml").read_text().partition("targets:")[0]
    source = written(folder / "smoke.yaml", text.encode())

    def arguments(at: Path) -> list[str]:
        return ["validate", str(source), "--set", f"targets=[{at / 'board.yaml'}]"]

    yield from _cases(target, functools.partial(_empty, folder), "board.yaml", arguments)


def _sweeps(folder: Path) -> Iterator[Case]:
    text = b"data: {name: imagefolder, root: /no/such/folder}\nmodel: {arch: mobilenet_v2}\n"
    sweep = {
        "recipe": str(written(folder / "small.yaml", text)), "vary": {"seed": {"low": 1, "high": 5}},
        "method": "random", "trials": 2, "objectives": ["top1"],
    }  # fmt: skip
    place = functools.partial(_empty, folder)
    yield from _cases(
        sweep, place, "sweep.yaml", lambda at: ["sweep", str(at / "sweep.yaml"), "--out", str(at / "run")]
    )


def _inventories(folder: Path) -> Iterator[Case]:
    inventory = {"orin": {"host": "127.0.0.1", "port": 9, "user": "me", "python": "python3", "identity": None}}

    def arguments(at: Path) -> list[str]:
        return ["deploy", str(folder / "no.tar"), "orin", "--run", str(SAMPLE), "--inventory", str(at / "boards.yaml")]

    yield from _cases(inventory, functools.partial(_empty, folder), "boards.yaml", arguments)


def _copied(folder: Path, good: Path, index: int) -> Path:
    place = folder / f"case-{index}"
    shutil.copytree(good, place, dirs_exist_ok=True)
    return place


def _empty(folder: Path, index: int) -> Path:
    place = folder / f"case-{index}"
    place.mkdir(parents=True, exist_ok=True)
    return place
