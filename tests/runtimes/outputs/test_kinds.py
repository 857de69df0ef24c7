"""Pixels get the class of the largest channel, masks that of their threshold, integers stay."""

from __future__ import annotations

import numpy as np

from runtimes.outputs.kinds import agreement_name, labels_of_pixels, with_batch_axis


def test_pixels_get_the_largest_channel_in_either_layout() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 3, 8, 6)).astype(np.float32)
    np.testing.assert_array_equal(labels_of_pixels(maps, 0), maps.argmax(1))
    np.testing.assert_array_equal(labels_of_pixels(maps.transpose(0, 2, 3, 1), 0), maps.argmax(1))


def test_masks_and_integers() -> None:
    mask = np.asarray([[[[0.2, 0.6], [0.5, 0.9]]]], np.float32)
    assert labels_of_pixels(mask, 0.5).tolist() == [[[[0, 1], [0, 1]]]]
    assert labels_of_pixels(np.asarray([[[3, 7]]], np.int32), 0).tolist() == [[[3, 7]]]


def test_every_output_of_one_image_belongs_to_it() -> None:
    outputs = tuple(np.zeros(shape) for shape in [(7, 1, 3), (1, 5), (10,), ()])
    assert [values.shape for values in with_batch_axis(outputs, 1)] == [(1, 7, 1, 3), (1, 5), (1, 10), (1,)]
    assert with_batch_axis(outputs, 7) == outputs


def test_every_kind_has_a_name_for_its_agreement() -> None:
    assert [agreement_name(kind) for kind in ("classes", "detections", "segmentation", "other")] == [
        "agreement", "mAP", "equal pixels", "agreement",
    ]  # fmt: skip
