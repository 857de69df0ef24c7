"""Bundles with members outside the folder, links, devices or wrong contents."""

from __future__ import annotations

import copy
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from case import CLASSES, ROOT, SIDE, Case, artifact_in, leaves, put, written

from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target


def good_bundle(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """Write a correct bundle into the folder; return its path and the bytes of its members."""
    artifact = artifact_in(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    sample = evalset.write(
        folder / "sample", pixels, np.zeros(4, np.int64), tuple("wxyz"), CLASSES, Preprocessing(SIDE, SIDE)
    )
    good = folder / "good.tar"
    write_bundle(Artifact.load(artifact), Target("here"), folder / "sample", sample, good)
    with tarfile.open(good) as opened:
        members = {item.name: opened.extractfile(item).read() for item in opened.getmembers()}  # type: ignore[union-attr]
    return good, members


def bundles(folder: Path) -> Iterator[Case]:
    """Yield bundles with members outside the folder, links, devices or wrong contents."""
    good, members = good_bundle(folder)
    description = json.loads(members["bundle.json"])
    cases = {
        f"truncated to {share} %": good.read_bytes()[: good.stat().st_size * share // 100]
        for share in (0, 1, 10, 50, 90)
    }
    cases |= {"random bytes": np.random.default_rng(1).bytes(3000), "a text": b"no tar\n"}
    for name in ("../evil", "/tmp/evil", "a/../../evil", "..", "C:\\evil", "sample/../../evil", "-rf", "a\x01b"):
        cases[f"a member {name!r}"] = packed({**members, name: b"evil"})
    for kind, code in (("link", tarfile.SYMTYPE), ("hard link", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE),
                       ("pipe", tarfile.FIFOTYPE), ("folder", tarfile.DIRTYPE)):  # fmt: skip
        cases[f"a {kind}"] = packed(members, special=code)
    for name in members:
        cases[f"without {name}"] = packed({key: value for key, value in members.items() if key != name})
        cases[f"changed {name}"] = packed({**members, name: bytes([members[name][0] ^ 1]) + members[name][1:]})
    for key, _ in leaves(description):
        changed = copy.deepcopy(description)
        put(changed, key, [["no"]])
        if key[0] != "recipe":
            cases[f"bundle.json: {'.'.join(map(str, key))}"] = packed(
                {**members, "bundle.json": json.dumps(changed).encode()}
            )
    for name, content in cases.items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        path = written(place / "bundle.tar", content)
        written(folder / "run" / "report.json", (ROOT / "tests/samples/schema-1/report.json").read_bytes())
        arguments = ["deploy", str(path), "nobody@127.0.0.1:9", "--run", str(folder / "run")]
        yield Case(name, place, arguments, path.name, content)


def packed(members: dict[str, bytes], special: bytes | None = None) -> bytes:
    """Return a tar with these members, and with one of a special kind."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
        if special is not None:
            member = tarfile.TarInfo("evil")
            member.type, member.linkname = special, "/etc/passwd"
            opened.addfile(member)
    return stream.getvalue()
