"""The argument `data` of prune: data loaders, and images with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Chain
from torch.utils.data import DataLoader, TensorDataset

from compress.api.batches import (
    is_images_with_labels,
    loaded_batches,
    prepared_batches,
    require_known_labels,
    shape_as_preprocessing,
)
from export.inputs.options import NONE_GIVEN, PreprocessingOptions
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

FLOATS, LABELS = torch.randn(70, 3, 8, 8), torch.arange(70) % 5


def test_batches_of_a_loader_are_split_into_equal_ones() -> None:
    batches = loaded_batches(DataLoader(TensorDataset(FLOATS, LABELS), batch_size=50))
    assert [len(images) for images, _ in batches] == [32, 18, 20]
    assert torch.equal(torch.cat([images for images, _ in batches]), FLOATS)
    assert torch.equal(torch.cat([labels for _, labels in batches]), LABELS)


def test_a_loader_is_read_up_to_512_images() -> None:
    given = []

    def endless() -> Any:
        while True:
            given.append(1)
            yield FLOATS[:32], LABELS[:32]

    assert sum(len(images) for images, _ in loaded_batches(endless())) == 512
    assert len(given) == 16


def test_two_tensors_are_one_batch() -> None:
    assert not is_images_with_labels((FLOATS, LABELS))
    assert sum(len(images) for images, _ in loaded_batches((FLOATS, LABELS))) == 70  # type: ignore[arg-type]


@pytest.mark.parametrize(("data", "message"), [
    (3, "data: must be a data loader, or a tuple of images and labels, not int"),
    ([], "data: the data loader gives no batches"),
    ([{"image": FLOATS}], r"data: each batch must be \(images, labels\), two tensors, not dict"),
    ([FLOATS], "two tensors, not Tensor"),
    ([(FLOATS.byte(), LABELS)], r"data: images must be normalized floats of shape \(N, C, H, W\), not uint8 \(70, 3"),
    ([(FLOATS, LABELS.float())], r"data: labels must be class numbers of shape \(70,\), not float32 \(70,\)"),
    ([(FLOATS, LABELS[:3])], r"data: labels must be class numbers of shape \(70,\), not int64 \(3,\)"),
])  # fmt: skip
def test_batches_of_another_form_are_refused(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loaded_batches(data)


def test_images_with_labels_are_normalized(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    labels = list(range(40))
    assert is_images_with_labels((pixels, labels))
    options = PreprocessingOptions(mean=(0.5,), std=(0.25,))
    batches = prepared_batches(Chain(), pixels, labels, options, tmp_path, SilentConsole())
    expected = Preprocessing(8, 8, mean=(0.5,) * 3, std=(0.25,) * 3).normalize(pixels)
    np.testing.assert_allclose(torch.cat([images for images, _ in batches]).numpy(), expected, atol=1e-5)
    assert torch.cat([numbers for _, numbers in batches]).tolist() == labels


@pytest.mark.parametrize(("images", "labels", "message"), [
    ("photos", [0], "data: a folder has no order that labels could follow; give a list of paths"),
    (np.zeros((2, 8, 8, 3), np.uint8), [0], r"labels must be 2 class numbers, one for each image, not int64 \(1,\)"),
    (np.zeros((2, 8, 8, 3), np.uint8), [0.5, 1], "labels must be 2 class numbers, one for each image, not float64"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(images: Any, labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        prepared_batches(Chain(), images, labels, NONE_GIVEN, tmp_path, SilentConsole())


def test_the_shape_of_images_becomes_a_preprocessing() -> None:
    assert shape_as_preprocessing(torch.zeros(2, 3, 8, 8)).image_shape == (8, 8, 3)
    assert shape_as_preprocessing(torch.zeros(2, 1, 8, 24)).image_shape == (8, 24, 1)
    assert shape_as_preprocessing(torch.zeros(2, 7, 24, 8)).image_shape == (24, 8, 7)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_label_that_is_no_class_is_refused(wrong: int) -> None:
    require_known_labels([(FLOATS, LABELS)], 5)
    with pytest.raises(InputError, match=f"data: the label {wrong} is none of the 5 classes of the module"):
        require_known_labels([(FLOATS[:2], torch.tensor([0, wrong]))], 5)
