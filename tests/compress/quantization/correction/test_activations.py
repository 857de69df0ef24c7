"""Activations in memory and on disk: batches are returned in order, and no file remains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.quantization.correction.activations import Activations


def stored(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.mark.parametrize("memory", [0, 40, 1 << 20])
def test_batches_are_returned_in_order_with_their_types_any_number_of_times(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    stored = {
        "a": [rng.integers(0, 256, (2, 3), np.uint8) for _ in range(12)],
        "b/c:0": [rng.integers(-128, 128, (2, 1), np.int8) for _ in range(3)],
        "y": [rng.normal(size=(size, 3)).astype(np.float32) for size in (4, 1)],
    }
    with Activations(tmp_path, memory) as activations:
        for index in range(12):
            for name, batches in stored.items():
                if index < len(batches):
                    activations.append(name, batches[index])
        for _ in range(2):
            for name, batches in stored.items():
                loaded = list(activations.batches(name))
                assert [batch.dtype for batch in loaded] == [batch.dtype for batch in batches]
                for batch, other in zip(loaded, batches, strict=True):
                    np.testing.assert_array_equal(batch, other)


def test_a_dropped_tensor_is_deleted_and_can_be_stored_again(tmp_path: Path) -> None:
    with Activations(tmp_path, memory=0) as activations:
        for value in range(3):
            activations.append("a", np.full(2, value))
        activations.append("b", np.zeros(2))
        assert "a" in activations
        assert stored(tmp_path) == 4
        activations.drop("a")
        assert "a" not in activations
        assert "b" in activations
        assert stored(tmp_path) == 1
        with pytest.raises(KeyError):
            next(activations.batches("a"))
        activations.append("a", np.full(2, 7))
        assert [batch.tolist() for batch in activations.batches("a")] == [[7, 7]]
        activations.drop("never there")


def test_the_folder_is_deleted_after_the_block_and_after_an_exception(tmp_path: Path) -> None:
    with Activations(tmp_path, memory=0) as activations:
        activations.append("a", np.zeros(2))
        assert stored(tmp_path) == 1
    assert not list(tmp_path.iterdir())

    def fail() -> None:
        with Activations(tmp_path, memory=0) as other:
            other.append("a", np.zeros(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_only_batches_beyond_the_memory_are_files_and_dropped_tensors_make_room(tmp_path: Path) -> None:
    with Activations(tmp_path, memory=16) as activations:
        for name in ("a", "b", "c"):
            activations.append(name, np.zeros(8, np.uint8))
        assert stored(tmp_path) == 1
        activations.drop("a")
        activations.append("d", np.zeros(8, np.uint8))
        assert stored(tmp_path) == 1
        activations.drop("c")
        assert stored(tmp_path) == 0
