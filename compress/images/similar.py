"""Find images that look alike: a difference hash of 256 bits (dHash, N. Krawetz 2013), compared in bands of 32 bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 16  # bits per row and rows of the hash
BANDS = 8  # of 32 bits
MAX_DISTANCE = BANDS - 1  # differing bits; two hashes that differ in fewer bits than bands share a band
MIN_CONTRAST = 8  # grey levels; the hash of a flatter image is noise
MIN_PIXELS = 64  # side at which a JPEG may be decoded for its hash
PAIRS = 1 << 20  # compared at a time

Hashes = npt.NDArray[np.uint32]  # (N, BANDS)
Indices = npt.NDArray[np.intp]
_BITS_OF = np.asarray([value.bit_count() for value in range(1 << 16)], np.uint8)


def perceptual_hash(image: Image.Image) -> npt.NDArray[np.uint32] | None:
    """Return the hash of an image, (BANDS,): whether each pixel of a small grey copy is brighter than its left one.

    Return None for an image without contrast. Each band takes bits of all parts of the image, because a flat background
    is the same in many images.
    """
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)).astype(np.int16)
    if grey.max() - grey.min() < MIN_CONTRAST:
        return None
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1, BANDS).T
    return np.frombuffer(np.packbits(bits, axis=1).tobytes(), np.uint32)


def nearest(queries: Hashes, references: Hashes) -> tuple[Indices, npt.NDArray[np.uint16]]:
    """Return for each query the index of the most similar reference and their distance in bits.

    The index is -1 if none is within MAX_DISTANCE.
    """
    index = np.full(len(queries), -1, np.intp)
    distance = np.full(len(queries), MAX_DISTANCE + 1, np.uint16)
    for query, reference in _candidates(queries, references):
        differing = queries[query] ^ references[reference]
        bits = _BITS_OF[differing.view(np.uint16)].sum(1, dtype=np.uint16)
        order = np.lexsort((reference, bits, query))
        query, first = np.unique(query[order], return_index=True)
        best = order[first]
        nearer = bits[best] < distance[query]
        index[query[nearer]], distance[query[nearer]] = reference[best][nearer], bits[best][nearer]
    return index, distance


def _candidates(queries: Hashes, references: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """Yield indices of queries and of references that share a band, at most about PAIRS at a time."""
    for band in range(BANDS):
        order = np.argsort(references[:, band], kind="stable")
        ordered = references[order, band]
        starts = np.searchsorted(ordered, queries[:, band], "left")
        counts = np.searchsorted(ordered, queries[:, band], "right") - starts
        batch = np.cumsum(counts) // PAIRS
        for number in np.unique(batch[counts > 0]):
            chosen = np.flatnonzero((batch == number) & (counts > 0))
            repeated = np.repeat(chosen, counts[chosen])
            position = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[chosen]) - counts[chosen], counts[chosen])
            yield repeated, order[starts[repeated] + position]
