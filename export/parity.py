"""Compare the logits of two files for the same images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtimes.errors import CompressError
from runtimes.lineage import Parity

Logits = npt.NDArray[np.float32]

# Another order of float32 sums changes logits by about 1e-6 of their size; a wrong fold or layout by 1e-1.
FLOAT32_TOLERANCE = 1e-3


def compare(reference: Logits, other: Logits) -> Parity:
    """Compare two `(N, classes)` arrays of logits of the same images; raises ValueError for different shapes.

    There is no agreement with one column, where it would always be 1.
    """
    if reference.shape != other.shape:
        raise ValueError(f"logits of shapes {reference.shape} and {other.shape}")
    exact, compared = reference.astype(np.float64), other.astype(np.float64)
    noise = float(np.sum((exact - compared) ** 2))
    signal = float(np.sum(exact**2))
    return Parity(
        images=len(exact),
        agreement=float(np.mean(exact.argmax(1) == compared.argmax(1))) if exact.shape[1] > 1 else None,
        max_logit_difference=float(np.abs(exact - compared).max()),
        sqnr_db=10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None,
    )


def require_same(reference: Logits, other: Logits, what: str) -> Parity:
    """Compare float32 logits; raises CompressError where they differ by more than rounding."""
    parity = compare(reference, other)
    allowed = FLOAT32_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    if not parity.max_logit_difference <= allowed:
        raise CompressError(
            f"{what}: logits differ by {parity.max_logit_difference:.3g}, more than {allowed:.3g}; the export is wrong"
        )
    return parity
