"""Tests of runtimes.evalset: writing, opening and checking evaluation sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtimes import evalset
from runtimes.errors import InputError
from runtimes.evalset import EvalSet
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing

SMALL = Preprocessing(resize=4, crop=4)


@pytest.fixture
def folder(make_evalset: Callable[..., EvalSet], tmp_path: Path) -> Path:
    make_evalset()
    return tmp_path / "evalset"


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), np.uint8)
    labels = np.array([1, 0, 1])
    written = evalset.write(tmp_path, iter(images), labels, ("a", "b", "ü"), ("cat", "dog"), SMALL)
    for found in (written, evalset.load(tmp_path)):
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, labels)
        assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.int64)
        assert (found.names, found.classes, found.preprocessing) == (("a", "b", "ü"), ("cat", "dog"), SMALL)
        assert found.sha256 == sha256_file(tmp_path / "images.npy")
        assert len(found) == 3


def test_images_are_memory_mapped_and_read_only(folder: Path) -> None:
    images = evalset.load(folder).images
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_labels_are_optional(make_evalset: Callable[..., EvalSet], tmp_path: Path) -> None:
    assert make_evalset(labelled=False).labels is None
    assert not (tmp_path / "evalset" / "labels.npy").exists()


def test_labels_of_an_older_set_in_the_folder_are_not_taken(make_evalset: Callable[..., EvalSet]) -> None:
    make_evalset(labelled=True)
    assert make_evalset(labelled=False).labels is None


def test_nothing_temporary_stays_in_the_folder(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["evalset.json", "images.npy", "labels.npy"]


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        evalset.write(tmp_path, [], None, (), ("cat",), SMALL)


def test_images_that_stop_halfway_leave_no_set(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((4, 4, 3), np.uint8)
        raise OSError("the card was pulled")

    with pytest.raises(OSError, match="card"):
        evalset.write(tmp_path / "set", broken(), None, ("a", "b"), ("cat",), SMALL)
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_head_keeps_the_first_images_with_their_labels_and_names(
    make_evalset: Callable[..., EvalSet], count: int
) -> None:
    whole = make_evalset(6)
    head = whole.head(count)
    kept = min(count, 6)
    assert len(head) == len(head.names) == kept
    np.testing.assert_array_equal(head.images, whole.images[:kept])
    np.testing.assert_array_equal(head.labels, whole.labels[:kept])
    assert (head.names, head.classes) == (whole.names[:kept], whole.classes)
    assert len(whole) == 6


def test_head_of_a_set_without_labels_has_none(make_evalset: Callable[..., EvalSet]) -> None:
    assert make_evalset(labelled=False).head(2).labels is None


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5])])
def test_batches_hold_every_image_once_in_order_and_normalised(
    make_evalset: Callable[..., EvalSet], size: int, lengths: list[int]
) -> None:
    made = make_evalset(5)
    batches = list(made.batches(size))
    assert [len(batch) for batch in batches] == lengths
    assert all(batch.flags.c_contiguous and batch.dtype == np.float32 for batch in batches)
    np.testing.assert_array_equal(np.concatenate(batches), made.preprocessing.normalize(made.images))


@pytest.mark.parametrize("name", ["evalset.json", "images.npy", "labels.npy"])
def test_a_missing_file_is_an_input_error_that_names_the_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=name) as caught:
        evalset.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["evalset.json", "images.npy", "labels.npy"])
@pytest.mark.parametrize("kept", [3, 100, -1])
def test_a_cut_off_file_is_an_input_error(folder: Path, name: str, kept: int) -> None:
    whole = (folder / name).read_bytes().rstrip()
    (folder / name).write_bytes(whole[:kept])
    with pytest.raises(InputError, match=r"not an evaluation set|was changed"):
        evalset.load(folder)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_an_array_of_python_objects_is_not_unpickled(folder: Path, name: str) -> None:
    np.save(folder / name, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"[Oo]bject|pickle"):
        evalset.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "Expecting value"), ("[]", "list"), ("{}", "schema_version"), ('{"schema_version": 2}', "version 2, not 1")],
)
def test_a_description_that_does_not_fit_is_an_input_error(folder: Path, text: str, message: str) -> None:
    (folder / "evalset.json").write_text(text)
    with pytest.raises(InputError, match=message):
        evalset.load(folder)


@pytest.mark.parametrize("key", ["sha256", "classes", "names", "preprocessing"])
def test_a_description_without_a_key_names_it(folder: Path, key: str) -> None:
    description = json.loads((folder / "evalset.json").read_text())
    del description[key]
    (folder / "evalset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=key):
        evalset.load(folder)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_an_empty_array_file_is_an_input_error(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError):
        evalset.load(folder)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_flipped_bit_is_an_input_error(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-8] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError):
        evalset.load(folder)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images.npy", np.zeros((6, 4, 4, 3), np.float64)),
        ("images.npy", np.zeros((5, 4, 4, 3), np.uint8)),
        ("images.npy", np.zeros((6, 8, 8, 3), np.uint8)),
        ("images.npy", np.zeros((6, 3, 4, 4), np.uint8)),
        ("labels.npy", np.zeros(5, np.int64)),
        ("labels.npy", np.full(6, 3)),
        ("labels.npy", np.full(6, -1)),
    ],
)
def test_arrays_that_do_not_fit_the_description_are_an_input_error(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / name, array)
    description = json.loads((folder / "evalset.json").read_text())
    description["sha256"][name.removesuffix(".npy")] = sha256_file(folder / name)
    (folder / "evalset.json").write_text(json.dumps(description))
    with pytest.raises(InputError):
        evalset.load(folder)


def test_fewer_images_than_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        evalset.write(tmp_path, np.ones((1, 4, 4, 3), np.uint8), None, ("a", "b"), ("cat",), SMALL)
    assert not (tmp_path / "images.npy").exists()


def test_another_number_of_labels_than_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 labels for 2 images"):
        evalset.write(tmp_path, np.ones((2, 4, 4, 3), np.uint8), np.zeros(3), ("a", "b"), ("cat",), SMALL)


def test_a_set_can_be_changed_without_touching_the_first(make_evalset: Callable[..., EvalSet]) -> None:
    made = make_evalset()
    assert replace(made, labels=None).labels is None
    assert made.labels is not None


def test_what_was_read_of_the_file_does_not_stay_in_memory(tmp_path: Path) -> None:
    side, count = 64, 2000
    rng = np.random.default_rng(0)
    opened = evalset.write(
        tmp_path, (rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)), None,
        tuple(map(str, range(count))), ("a",), Preprocessing(side, side),
    )  # fmt: skip

    def resident_bytes() -> int:
        mapping = Path("/proc/self/smaps").read_text().partition("images.npy")[2]
        return 1024 * int(mapping.partition("Rss:")[2].split()[0])

    if not Path("/proc/self/smaps").exists():
        pytest.skip("this system does not say how much of a file is in memory")
    assert sum(len(batch) for batch in opened.batches(16)) == count
    assert resident_bytes() < 0.05 * opened.images.nbytes
