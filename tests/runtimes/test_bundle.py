"""Tests of runtimes.bundle: unpacking, verification, and rejection of changed or hostile tars."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtimes import bundle, environment, evalset
from runtimes.errors import InputError, UnavailableError
from runtimes.files import sha256_file
from runtimes.target import Target

TARGET = Target("board", runtime="fake")
LOGITS = [[3, 1, 0], [0, 2, 1], [1, 0, 4], [0.0, 0.1, 0]]


def rewritten(tar: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """Return the tar with one member's content changed."""
    other = tar.with_name("changed.tar")
    with tarfile.open(tar) as source, tarfile.open(other, "w") as out:
        for member in source.getmembers():
            stream = source.extractfile(member)
            assert stream is not None
            content = change(stream.read()) if member.name == name else stream.read()
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return other


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy: "expected bool", of allow_pickle
    return stream.getvalue()


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def test_a_bundle_opens_and_verifies(packed: Callable[..., Path], tmp_path: Path) -> None:
    opened = bundle.unpack(packed(), tmp_path / "board")
    np.testing.assert_allclose(opened.golden, np.asarray(LOGITS, np.float32))
    found = bundle.verify(opened)
    assert found.passed
    assert (found.images, found.agreement, found.max_logit_difference) == (4, 1.0, 0.0)
    bundle.require_passed(found)


@pytest.mark.parametrize(("precision", "noise", "passed", "changed"), [
    ("float32", 0.002, True, 0), ("float32", 0.02, False, 0), ("int8", 0.15, True, 1), ("int8", 2.5, False, 2),
])  # fmt: skip
def test_answers_may_differ_by_the_order_of_sums_and_no_more(
    packed: Callable[..., Path], tmp_path: Path, precision: str, noise: float, passed: bool, changed: int
) -> None:
    """The last image's two best classes are 0.1 apart: too near to call for INT8."""
    opened = bundle.unpack(packed(precision=precision), tmp_path / "board")
    moved = opened.golden + noise * np.asarray([[0, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    found = bundle.verify(dataclasses.replace(opened, golden=moved.astype(np.float32)))
    assert found.passed == passed
    assert found.changed == changed


@pytest.mark.parametrize("name", ["run.pyz", "golden.npy", "a.fake", "a.fake.json", "sample/images.npy"])
def test_a_changed_byte_is_refused(packed: Callable[..., Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="was changed; unpack the bundle again"):
        bundle.unpack(rewritten(packed(), name, flipped), tmp_path / "board")


@pytest.mark.parametrize("change", [
    lambda content: content[:40], lambda content: b"[]",
    lambda content: content.replace(b'"schema_version": 1', b'"schema_version": 9'),
    lambda content: content.replace(b'"golden.npy"', b'"../golden.npy"'),
    lambda content: content.replace(b'"artifact": "a.fake"', b'"artifact": "b.fake"'),
    lambda content: content.replace(b'"runtime": "fake"', b'"runtime": "magic"'),
    lambda content: content.replace(b'"golden.npy"', b'"none.npy"'),
])  # fmt: skip
def test_a_damaged_description_is_one_line(
    packed: Callable[..., Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(InputError) as caught:
        bundle.unpack(rewritten(packed(), "bundle.json", change), tmp_path / "board")
    assert "\n" not in str(caught.value)
    assert ".tar: " in str(caught.value)  # what the user has, and not
    assert str(tmp_path / "board") not in str(caught.value)  # where it was unpacked


@pytest.mark.parametrize("content", [b"", npz(golden=np.ones(3)), b"\x93NUMPY"])
def test_golden_logits_that_are_no_array_are_one_line(
    packed: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    def change(old: bytes) -> bytes:
        description = json.loads(old)
        description["files"]["golden.npy"] = hashlib.sha256(content).hexdigest()
        return json.dumps(description).encode()

    described = rewritten(packed(), "bundle.json", change).rename(tmp_path / "described.tar")
    tar = rewritten(described, "golden.npy", lambda _: content)
    with pytest.raises(InputError, match="not a bundle"):
        bundle.unpack(tar, tmp_path / "board")


KEYS = ("schema_version", "artifact", "target", "recipe", "files")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["absent", [], ["a"], {}, {"a": 1}, 3, "", True, None])
def test_a_missing_key_or_a_value_of_another_type_is_one_line(
    packed: Callable[..., Path], tmp_path: Path, key: str, value: object
) -> None:
    def change(content: bytes) -> bytes:
        description = json.loads(content)
        description[key] = value
        if value == "absent":
            del description[key]
        return json.dumps(description).encode()

    tar = rewritten(packed(), "bundle.json", change)
    if key == "recipe" and value in (None, ""):
        bundle.unpack(tar, tmp_path / "board")
        return
    if (key, value) == ("schema_version", True):
        return  # equals 1
    with pytest.raises(InputError) as caught:
        bundle.unpack(tar, tmp_path / "board")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tar}: ")


@pytest.mark.parametrize(("name", "kind"), [
    ("../escaped", tarfile.REGTYPE), ("/tmp/escaped", tarfile.REGTYPE), ("sample/../../escaped", tarfile.REGTYPE),
    ("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE),
])  # fmt: skip
def test_a_member_that_leaves_the_folder_is_refused_and_nothing_is_written(
    packed: Callable[..., Path], tmp_path: Path, name: str, kind: bytes
) -> None:
    tar = packed()
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tar, "a") as archive:
        archive.addfile(member)
    with pytest.raises(InputError, match="give a tar made by compress bundle") as caught:
        bundle.unpack(tar, tmp_path / "board")
    assert str(caught.value).startswith(f"{tar}: ")
    assert not (tmp_path / "board").exists()
    assert not (tmp_path / "escaped").exists()


def test_what_is_no_tar_or_too_large_is_refused(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.tar").write_text("hello")
    tarfile.open(tmp_path / "empty.tar", "w").close()
    for name, message in (
        ("text.tar", "not a readable tar"),
        ("empty.tar", "has no bundle.json"),
        ("no.tar", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            bundle.unpack(tmp_path / name, tmp_path / "board")
    monkeypatch.setattr(bundle, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(InputError, match="would unpack to more"):
        bundle.unpack(packed(), tmp_path / "board")


def test_a_file_for_vnni_does_not_run_where_its_sums_saturate(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = bundle.unpack(packed(scheme="x86-vnni", precision="int8"), tmp_path / "board")
    monkeypatch.setattr(environment, "detect_instruction_set", lambda: "x86-avx2")
    with pytest.raises(UnavailableError, match="would saturate silently"):
        bundle.verify(opened)


def test_an_evaluation_set_of_another_size_does_not_fit(packed: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "board"
    opened = bundle.unpack(packed(), folder)
    description = json.loads((folder / "bundle.json").read_text())
    shutil.rmtree(folder / "sample")
    evalset.write(folder / "sample", opened.sample.images[:2], None, ("a", "b"), opened.sample.classes,
                  opened.sample.preprocessing)  # fmt: skip
    description["files"] = {
        name: sha256_file(folder / name) for name in description["files"] if (folder / name).exists()
    }
    (folder / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="not a logit per image and class"):
        bundle.load(folder)
