"""Kinds of outputs, and the share that compares each kind with float32."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

# Meaning of a file's outputs.
#   classes       a logit or probability of each class, (N, classes), also as (N, classes, 1, 1)
#   binary        one logit or probability of the second of two classes, (N,) or (N, 1)
#   embedding     a vector for each image, compared by its direction
#   detections    boxes with scores, before or after non-maximum suppression
#   segmentation  a class of each pixel: logits (N, classes, h, w), a mask (N, 1, h, w), or integers
#   other         anything else: values, feature maps, sequences
OutputKind = Literal["classes", "binary", "embedding", "detections", "segmentation", "other"]
Arrays = tuple[npt.NDArray[Any], ...]  # every output of a file, in its order; of any type

CLASSIFIERS: tuple[OutputKind, ...] = ("classes", "binary")

# Name of the share, from 0 to 1, in which two files agree; kinds without one are compared by SQNR alone.
AGREEMENT_NAMES: dict[OutputKind, str] = {
    "classes": "agreement",
    "binary": "agreement",
    "detections": "mAP",
    "segmentation": "equal pixels",
}


def agreement_name(kind: OutputKind) -> str:
    """Return the name of a kind's agreement for tables."""
    return AGREEMENT_NAMES.get(kind, "agreement")


def with_batch_axis(outputs: Arrays, images: int) -> Arrays:
    """Return the outputs of a call with the batch as the first axis, which files of one image may lack: (T, 1, C)."""
    return tuple(array[None] if images == 1 and array.shape[:1] != (1,) else array for array in outputs)


def labels_of_pixels(output: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.int64]:
    """Return the class of each pixel of a segmentation (n, …): integers as they are, else the largest of all channels.

    threshold: of a mask with one channel.
    """
    if not np.issubdtype(output.dtype, np.floating):
        return output.astype(np.int64)
    axis = 1 if output.ndim < 4 or output.shape[3] >= min(output.shape[1:3]) else 3  # (n, h, w, channels)
    if output.ndim == 4 and output.shape[axis] > 1:
        return np.asarray(output.argmax(axis), np.int64)
    return (output > threshold).astype(np.int64)
