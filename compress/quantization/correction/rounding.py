"""Rounding with error feedback: later weights of a row compensate the rounding error of earlier ones.

Frantar et al., GPTQ, ICLR 2023, after Hassibi and Stork, Optimal Brain Surgeon, NIPS 1992.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import linalg

from export.layers import LARGEST_NEIGHBOUR_SUM

Float64 = npt.NDArray[np.float64]

# Share of the mean second moment added to the diagonal, since the moments of calibration images are only an estimate:
# at least MIN_DAMPING, and more for few samples of many inputs (squeeze-excite, classifiers).
MIN_DAMPING, DAMPING_PER_INPUT = 0.01, 0.25
BLOCK = 64  # columns whose effect on later columns is applied in one matrix product


def error_feedback(
    rows: Float64, scale: Float64, moments: Float64, samples: int, largest: int, limit_neighbours: bool
) -> npt.NDArray[np.int8]:
    """Round weights (O, K) to integers (O, K) so that the layer's outputs, not the weights, change least.

    scale: (O,). moments: (K, K), mean of x xT over `samples` samples of the layer's inputs. limit_neighbours: keep
    |q(2k) + q(2k + 1)| within `LARGEST_NEIGHBOUR_SUM`.
    Each column is rounded to nearest; its error, weighted by the Cholesky factor of the inverse moments, is subtracted
    from the columns not yet rounded (GPTQ, equations 2 and 3, step 3). Errors caused by limits are fed back like
    rounding errors. Weights of inputs that are always 0 round to nearest.
    """
    outputs, inputs = rows.shape
    factor = _inverse_factor(moments, _damping(inputs, samples))
    rest = rows.T.copy()  # for a single row, the transpose shares memory
    integers = np.empty((inputs, outputs))
    inverse_scale = 1 / scale
    for start in range(0, inputs, BLOCK):
        end = min(start + BLOCK, inputs)
        errors = np.empty((end - start, outputs))
        for k in range(start, end):
            lowest: Float64 | int = -largest
            highest: Float64 | int = largest
            if limit_neighbours and k % 2 == 1:
                lowest = np.maximum(lowest, -LARGEST_NEIGHBOUR_SUM - integers[k - 1])
                highest = np.minimum(highest, LARGEST_NEIGHBOUR_SUM - integers[k - 1])
            integers[k] = np.clip(np.rint(rest[k] * inverse_scale), lowest, highest)
            errors[k - start] = (rest[k] - integers[k] * scale) / factor[k, k]
            rest[k + 1 : end] -= factor[k, k + 1 : end, None] * errors[k - start]
        rest[end:] -= factor[start:end, end:].T @ errors
    return integers.T.astype(np.int8)


def error_feedback_depthwise(
    rows: Float64, scale: Float64, moments: Float64, samples: int, largest: int
) -> npt.NDArray[np.int8]:
    """Round depthwise weights (C, K) as `error_feedback` does, each channel with its own moments (C, K, K)."""
    taps = rows.shape[1]
    factor = _inverse_factors(moments, _damping(taps, samples))
    rest = rows.copy()
    integers = np.empty(rows.shape)
    for k in range(taps):
        integers[:, k] = np.clip(np.rint(rest[:, k] / scale), -largest, largest)
        error = (rest[:, k] - integers[:, k] * scale) / factor[:, k, k]
        rest[:, k + 1 :] -= error[:, None] * factor[:, k, k + 1 :]
    return integers.astype(np.int8)


def _damping(inputs: int, samples: int) -> float:
    return max(MIN_DAMPING, DAMPING_PER_INPUT * inputs / samples)


def _inverse_factor(moments: Float64, share: float) -> Float64:
    """Return the upper Cholesky factor of the inverse of the damped moments, (K, K)."""
    damping = share * float(np.mean(np.diag(moments)))
    damped = moments + np.eye(len(moments)) * (damping or 1.0)  # 1.0 if all inputs are 0, where any rounding is exact
    lower, _ = linalg.cho_factor(damped, lower=True)
    inverse = linalg.lapack.dpotri(lower, lower=1)[0]
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    factor: Float64 = linalg.cholesky(inverse)
    return factor


def _inverse_factors(moments: Float64, share: float) -> Float64:
    """Return `_inverse_factor` of many small (K, K) moments at once."""
    damping = share * np.trace(moments, axis1=1, axis2=2) / moments.shape[1]
    damped = moments + np.eye(moments.shape[1]) * np.where(damping > 0, damping, 1.0)[:, None, None]
    factors: Float64 = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    return factors
