"""Compare the outputs of two files image by image, as the kind of the outputs requires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes.lineage import Parity
from runtimes.outputs.detections import Boxes, Decoder, decoder_of, mean_average_precision
from runtimes.outputs.kinds import Arrays, OutputKind, labels_of_pixels


@dataclass
class Comparison:
    """The comparison of a file's outputs with those of a reference, to which images are added one by one.

    names: of the outputs. threshold: of one output for two classes, and of masks: 0.5 for probabilities, 0 for logits.
    """

    kind: OutputKind
    names: tuple[str, ...]
    threshold: float = 0.0
    images: int = 0
    _signal: dict[str, float] = field(default_factory=dict)
    _noise: dict[str, float] = field(default_factory=dict)
    _largest: float = 0.0
    _shares: list[float] = field(default_factory=list)
    _decoder: Decoder | None = None
    _boxes: tuple[list[Boxes], list[Boxes]] = field(default_factory=lambda: ([], []))

    def add(self, reference: Arrays, other: Arrays) -> None:
        """Add the outputs of one image, without the batch axis."""
        self.images += 1
        exact, compared = (parts(self.kind, self.names, arrays) for arrays in (reference, other))
        for name, values in exact.items():
            if values.shape == compared[name].shape:  # files with their own suppression return as many boxes as found
                difference = values.astype(np.float64) - compared[name]
                self._signal[name] = self._signal.get(name, 0.0) + float(np.square(values, dtype=np.float64).sum())
                self._noise[name] = self._noise.get(name, 0.0) + float(np.square(difference).sum())
                self._largest = max(self._largest, float(np.abs(difference).max(initial=0)))
        if self.kind == "detections":
            self._decoder = self._decoder or decoder_of(reference)
            if self._decoder is not None:
                for boxes, arrays in zip(self._boxes, (reference, other), strict=True):
                    boxes.append(self._decoder(arrays))
        elif self.kind in ("classes", "binary", "segmentation"):
            self._shares.append(self._equal_share(reference[0], other[0]))

    def agreement(self) -> float | None:
        """Return the share in which both agree, None for kinds without one, without an image or without an object."""
        if self.kind == "detections":
            return mean_average_precision(*self._boxes)
        return float(np.mean(self._shares)) if self._shares else None

    def sqnr_db(self) -> dict[str, float | None]:
        """Return 10 log10(signal power / noise power) of each output, None where it is identical or all zero."""
        return {name: _ratio_db(signal, self._noise[name]) for name, signal in self._signal.items()}

    def parity(self) -> Parity:
        """Return the figures of all images; the SQNR is that of the worst output."""
        ratios = self.sqnr_db()
        known = [ratio for ratio in ratios.values() if ratio is not None]
        return Parity(
            images=self.images,
            agreement=self.agreement(),
            max_logit_difference=self._largest,
            sqnr_db=min(known, default=None),
            outputs_sqnr_db=ratios if self.kind not in ("classes", "binary") else None,
        )

    def _equal_share(self, reference: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
        if self.kind == "segmentation":
            labels = [labels_of_pixels(array[None], self.threshold) for array in (reference, other)]
            return float(np.mean(labels[0] == labels[1]))
        if self.kind == "binary" or reference.size == 1:
            return float((reference.ravel()[0] > self.threshold) == (other.ravel()[0] > self.threshold))
        return float(reference.argmax() == other.argmax())


def compare(kind: OutputKind, names: tuple[str, ...], pairs: Sequence[tuple[Arrays, Arrays]]) -> Parity:
    """Return the comparison of the outputs of some images, as (reference, other) of each."""
    comparison = Comparison(kind, names)
    for reference, other in pairs:
        comparison.add(reference, other)
    return comparison.parity()


def parts(kind: OutputKind, names: Sequence[str], arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Return the float outputs of an image by name; boxes and scores that share a tensor apart.

    Their units differ: in the noise of pixel coordinates, that of scores would not be seen.
    """
    result: dict[str, npt.NDArray[Any]] = {}
    for name, array in zip(names, arrays, strict=True):
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if kind == "detections" and len(arrays) == 1 and array.ndim == 2 and min(array.shape) > 4:
            rows = array if array.shape[0] < array.shape[1] else array.T
            result |= {f"{name} boxes": rows[:4], f"{name} scores": rows[4:]}
        else:
            result[name] = array
    return result


def _ratio_db(signal: float, noise: float) -> float | None:
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None
