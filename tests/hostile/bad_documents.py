"""Manifests with a wrong value in every field, and files that are not reports."""

from __future__ import annotations

import copy
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from case import NO_JSON, Case, artifact_in, leaves, put, written


def manifests(folder: Path) -> Iterator[Case]:
    """Yield manifests with a wrong value in every field, and JSON that is not a manifest."""
    artifact = artifact_in(folder / "model")
    whole = json.loads(artifact.with_name("model.onnx.json").read_text())
    wrong: dict[str, bytes] = {}
    for path, value in leaves(whole):
        if path[0] in ("lineage", "versions", "recipe", "opset", "scheme"):
            continue  # information only
        for other in ({"no": 1}, [[]], "no such", -7):
            changed = copy.deepcopy(whole)
            put(changed, path, other)
            valid = path[0] == "labels" and other == "no such"
            if other != value and not valid:
                wrong[f"{'.'.join(map(str, path))} is {other}"] = json.dumps(changed).encode()
    optional = {"lineage", "versions", "recipe", "opset", "scheme", "output", "kind", "more_outputs"}
    for name in set(whole) - optional:
        wrong[f"without {name}"] = json.dumps({key: value for key, value in whole.items() if key != name}).encode()
    wrong |= {f"JSON: {text[:20]!r}": text for text in NO_JSON}
    for name, content in wrong.items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(artifact, place / "model.onnx")
        written(place / "model.onnx.json", content)
        yield Case(name, place, ["measure", str(place / "model.onnx"), "--blocks", "2"], "model.onnx", content)


def reports(folder: Path) -> Iterator[Case]:
    """Yield run folders and accepted results without a valid report."""
    for command, name in (("report", "report.json"), ("bundle", "report.json"), ("accept", "report.json")):
        for index, content in enumerate(NO_JSON):
            place = folder / f"{command}-{index}"
            written(place / name, content)
            more = {"report": [], "bundle": ["-o", str(place / "out.tar")], "accept": ["-o", str(place / "out.json")]}
            identity = content + command.encode()
            yield Case(f"{command} of {content[:20]!r}", place, [command, str(place), *more[command]], name, identity)
    for index, content in enumerate((*NO_JSON, b'{"schema_version": 1, "results": [{}]}')):
        place = folder / f"check-{index}"
        path = written(place / "accepted.json", content)
        arguments = ["compare", str(path), str(path)]
        yield Case(f"compare {content[:20]!r}", place, arguments, path.name, content + b"compare")
