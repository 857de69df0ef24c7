"""Rounding with error feedback: later weights of a row compensate the rounding error of earlier ones.

Frantar et al., GPTQ, ICLR 2023, after Hassibi and Stork, Optimal Brain Surgeon, NIPS 1992.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import linalg

from export.layers import LARGEST_NEIGHBOUR_SUM

Float64 = npt.NDArray[np.float64]

# Share of the mean second moment added to the diagonal, since the moments of calibration images are only an estimate:
# at least MIN_DAMPING, and more for few samples of many inputs (squeeze-excite, classifiers).
MIN_DAMPING, DAMPING_PER_INPUT = 0.01, 0.25
ROWS_AT_ONCE = 512  # of layers with many inputs, which bounds memory
BLOCK = 64  # even; columns whose effect on later columns is applied in one matrix product


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
    inputs = rows.shape[1]
    factor = _inverse_factor(moments, _damping(inputs, samples))
    rest = rows.T.copy()  # for a single row, the transpose shares memory
    integers = np.empty(rest.shape, np.int8)
    for start in range(0, inputs, BLOCK):
        block = slice(start, min(start + BLOCK, inputs))
        integers[block], errors = _round_block(rest[block], scale, factor[block, block], largest, limit_neighbours)
        rest[block.stop :] -= factor[block, block.stop :].T @ errors
    return integers.T


def error_feedback_of_samples(
    rows: npt.NDArray[np.floating], scale: Float64, samples: npt.NDArray[np.float32], largest: int,
    limit_neighbours: bool,
) -> npt.NDArray[np.int8]:  # fmt: skip
    """Round weights (O, K) as `error_feedback` does, for many inputs: without any matrix (K, K).

    samples: (S, K), of which the moments are the mean of x xT; S is much smaller than K. The inverse of the moments and
    its factor follow block by block from matrices (S, S) by the Woodbury identity.
    """
    inputs = samples.astype(np.float64)
    blocks = list(_factor_blocks(inputs))
    integers = np.empty(rows.shape, np.int8)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        feedback = np.zeros((len(inputs), len(rows[part])))
        for block, factor, spread in blocks:
            rest = rows[part, block].T + inputs[:, block].T @ feedback
            rounded, errors = _round_block(rest, scale[part], factor, largest, limit_neighbours)
            integers[part, block] = rounded.T
            feedback += spread @ errors
    return integers


def _round_block(
    rest: Float64, scale: Float64, factor: Float64, largest: int, limit_neighbours: bool
) -> tuple[npt.NDArray[np.int8], Float64]:
    """Round columns of weights (B, O) in turn, in place; return integers and weighted errors (B, O).

    factor: (B, B), of these columns. The first column is not the second of two neighbours.
    """
    integers, errors = np.empty(rest.shape), np.empty(rest.shape)
    inverse_scale = 1 / scale
    for k in range(len(rest)):
        lowest: Float64 | int = -largest
        highest: Float64 | int = largest
        if limit_neighbours and k % 2 == 1:
            lowest = np.maximum(lowest, -LARGEST_NEIGHBOUR_SUM - integers[k - 1])
            highest = np.minimum(highest, LARGEST_NEIGHBOUR_SUM - integers[k - 1])
        integers[k] = np.clip(np.rint(rest[k] * inverse_scale), lowest, highest)
        errors[k] = (rest[k] - integers[k] * scale) / factor[k, k]
        rest[k + 1 :] -= factor[k, k + 1 :, None] * errors[k]
    return integers.astype(np.int8), errors


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


def _factor_blocks(inputs: Float64) -> Iterator[tuple[slice, Float64, Float64]]:
    """Yield for each block of the inputs (S, K) the factor within the block (B, B), and its effect on later blocks.

    With H = d I + X XT / S for the inputs X from this block on, H^-1 = (I - X M^-1 XT) / d, where M = S d I + XT X is
    (S, S). The factor of the block is that of this matrix's upper left corner, and the rows of the factor to its right
    are the product of later inputs with an (S, B) matrix, which is yielded.
    """
    samples, count = inputs.shape
    damping = _damping(count, samples) * float(np.mean(np.square(inputs))) or 1.0
    gram = inputs @ inputs.T + np.eye(samples) * samples * damping
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        own = inputs[:, block]
        solved = linalg.cho_solve(linalg.cho_factor(gram, lower=True), own)
        factor = linalg.cholesky((np.eye(own.shape[1]) - own.T @ solved) / damping)
        yield block, factor, linalg.solve_triangular(factor, solved.T / damping, trans="T").T
        gram -= own @ own.T


def _inverse_factor(moments: Float64, share: float) -> Float64:
    """Return the upper Cholesky factor of the inverse of the damped moments, (K, K)."""
    damping = share * float(np.mean(np.diag(moments)))
    damped = moments.copy()
    damped[np.diag_indices(len(moments))] += damping or 1.0  # 1.0 if all inputs are 0, where any rounding is exact
    # With J that reverses the order, J H J = L LT gives H^-1 = UT U for the upper triangular U = (J L J)^-1.
    lower = linalg.cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
    factor: Float64 = linalg.lapack.dtrtri(lower[::-1, ::-1], lower=0)[0]
    return factor


def _inverse_factors(moments: Float64, share: float) -> Float64:
    """Return `_inverse_factor` of many small (K, K) moments at once."""
    damping = share * np.trace(moments, axis1=1, axis2=2) / moments.shape[1]
    damped = moments + np.eye(moments.shape[1]) * np.where(damping > 0, damping, 1.0)[:, None, None]
    factors: Float64 = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    return factors
