"""Error feedback, compared with a direct implementation of Optimal Brain Surgeon in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantization.correction import rounding
from compress.quantization.correction.rounding import (
    BLOCK,
    error_feedback,
    error_feedback_depthwise,
    error_feedback_of_samples,
)

MANY = 10**9  # samples, for minimum damping
Array = np.ndarray


def surgeon(rows: Array, scale: Array, moments: Array, samples: int, largest: int, limited: bool) -> Array:
    """Round a weight, update all others by OBS, eliminate it from the inverse Hessian; one row after the other."""
    inputs = rows.shape[1]
    share = max(0.01, 0.25 * inputs / samples)
    damping = share * np.mean(np.diag(moments)) or 1.0
    integers = np.zeros(rows.shape, int)
    for row in range(len(rows)):
        inverse = np.linalg.inv(moments + damping * np.eye(inputs))
        rest = rows[row].astype(np.float64).copy()
        for k in range(inputs):
            low, high = -largest, largest
            if limited and k % 2:
                low, high = max(low, -128 - integers[row, k - 1]), min(high, 128 - integers[row, k - 1])
            integers[row, k] = min(max(round(float(rest[k] / scale[row])), low), high)
            rest -= (rest[k] - integers[row, k] * scale[row]) / inverse[k, k] * inverse[k]
            inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return integers


def problem(inputs: int, outputs: int, seed: int = 0, steps: float = 15) -> tuple[Array, Array, Array, Array]:
    """Return rows, scales for the given number of steps, moments of correlated inputs, and the inputs."""
    rng = np.random.default_rng(seed)
    causes = max(2, inputs // 4)
    x = rng.normal(0, 1, (1000, causes)) @ rng.normal(0, 1, (causes, inputs)) + rng.normal(0, 0.1, (1000, inputs))
    rows = rng.normal(0, 1, (outputs, inputs))
    return rows, np.abs(rows).max(1) / steps, x.T @ x / len(x), x


def loss(x: Array, rows: Array, integers: Array, scale: Array) -> float:
    return float(np.square(x @ (rows - integers * scale[:, None]).T).sum())


def within_limit(rows: Array, scale: Array, largest: int = 127) -> Array:
    """Round to nearest and clip; the second of two neighbours gets what the limit of their sum allows."""
    integers = np.rint(rows / scale[:, None]).clip(-largest, largest)
    even = integers[:, : integers.shape[1] // 2 * 2 : 2]
    integers[:, 1::2] = np.clip(integers[:, 1::2], np.maximum(-largest, -128 - even), np.minimum(largest, 128 - even))
    return integers


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("inputs", [1, 2, 9, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 22])
def test_it_equals_optimal_brain_surgeon_for_any_number_of_blocks(inputs: int, limited: bool) -> None:
    rows, scale, moments, _ = problem(inputs, 3, inputs, steps=140 if limited else 15)
    result = error_feedback(rows, scale, moments, 5000, 127, limited)
    assert result.dtype == np.int8
    np.testing.assert_array_equal(result, surgeon(rows, scale, moments, 5000, 127, limited))


@settings(max_examples=60)
@given(
    inputs=st.integers(1, 12), outputs=st.integers(1, 4), seed=st.integers(0, 10**6), samples=st.integers(1, 10**6),
    steps=st.floats(1, 400), largest=st.sampled_from([64, 127]), limited=st.booleans(),
)  # fmt: skip
def test_it_equals_optimal_brain_surgeon_on_any_small_problem(
    inputs: int, outputs: int, seed: int, samples: int, steps: float, largest: int, limited: bool
) -> None:
    rows, scale, moments, _ = problem(
        inputs, outputs, seed, steps * 1.00012345
    )  # avoids ties, which may round either way
    result = error_feedback(rows, scale, moments, samples, largest, limited)
    np.testing.assert_array_equal(result, surgeon(rows, scale, moments, samples, largest, limited))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_result_does_not_depend_on_the_block_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, scale, moments, _ = problem(50, 4)
    expected = error_feedback(rows, scale, moments, MANY, 127, True)
    monkeypatch.setattr(rounding, "BLOCK", block)
    np.testing.assert_array_equal(error_feedback(rows, scale, moments, MANY, 127, True), expected)


@pytest.mark.parametrize("seed", range(4))
def test_it_has_a_third_of_the_error_of_nearest_rounding_for_correlated_inputs(seed: int) -> None:
    rows, scale, moments, x = problem(100, 8, seed)
    fed = error_feedback(rows, scale, moments, MANY, 127, False)
    assert loss(x, rows, fed, scale) < loss(x, rows, np.rint(rows / scale[:, None]), scale) / 3


@pytest.mark.parametrize("inputs", [5, 70])
def test_weights_of_uncorrelated_inputs_are_rounded_to_nearest(inputs: int) -> None:
    rows, scale, *_ = problem(inputs, 4)
    moments = np.diag(np.random.default_rng(1).uniform(0.1, 10, inputs))
    for given_moments in (np.eye(inputs), moments):
        result = error_feedback(rows, scale, given_moments, MANY, 127, False)
        np.testing.assert_array_equal(result, np.rint(rows / scale[:, None]))


@settings(max_examples=100)
@given(inputs=st.integers(1, 80), seed=st.integers(0, 10**6), steps=st.floats(1, 2000))
def test_limited_neighbours_never_overflow_for_any_weights(inputs: int, seed: int, steps: float) -> None:
    rows, scale, moments, _ = problem(inputs, 4, seed, steps)
    result = error_feedback(rows, scale, moments, MANY, 127, limit_neighbours=True).astype(int)
    even = np.pad(result, ((0, 0), (0, inputs % 2)))
    assert np.abs(even[:, ::2] + even[:, 1::2]).max() <= 128
    assert np.abs(result).max() <= 127


def fitting_scale(rows: Array) -> Array:
    """Return the scale of `row_scales` for limited neighbours and an even number of inputs."""
    return np.maximum(np.abs(rows).max(1) / 127, np.abs(rows[:, ::2] + rows[:, 1::2]).max(1) / 127.5)


@pytest.mark.parametrize("lean", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_with_limited_neighbours_it_has_a_third_of_the_error_of_nearest_rounding(seed: int, lean: int) -> None:
    rows, _, moments, x = problem(64, 8, seed)
    rows = np.abs(rows) + 1 if lean else rows
    scale = fitting_scale(rows)
    fed = error_feedback(rows, scale, moments, MANY, 127, True)
    assert loss(x, rows, fed, scale) < loss(x, rows, within_limit(rows, scale), scale) / 3


def test_errors_of_the_limit_are_fed_back() -> None:
    """With too small scales, many weights are clipped; clipping after error feedback has twice the median error.

    Not in each case: the choice is greedy, and what the last neighbours lose nothing makes good.
    """
    ratios = []
    for seed in range(15):
        rows, scale, moments, x = problem(64, 8, seed, steps=127)
        free = error_feedback(rows, scale, moments, MANY, 127, False).astype(np.float64)
        clipped = within_limit(free, np.ones(len(free)))
        assert (clipped != free).any()
        fed = error_feedback(rows, scale, moments, MANY, 127, True)
        ratios.append(loss(x, rows, clipped, scale) / loss(x, rows, fed, scale))
    assert np.median(ratios) > 2


def test_weights_of_zero_inputs_are_rounded_to_nearest_and_do_not_affect_others() -> None:
    rows, scale, moments, _ = problem(70, 4)
    dead = [0, 13, 69]
    moments[dead], moments[:, dead] = 0, 0
    result = error_feedback(rows, scale, moments, MANY, 127, False)
    np.testing.assert_array_equal(result[:, dead], np.rint(rows / scale[:, None])[:, dead])
    np.testing.assert_array_equal(result, surgeon(rows, scale, moments, MANY, 127, False))


@pytest.mark.parametrize("limited", [False, True])
def test_a_layer_with_only_zero_inputs_is_rounded_to_nearest(limited: bool) -> None:
    rows, scale, *_ = problem(16, 4, steps=127)
    result = error_feedback(rows, scale, np.zeros((16, 16)), MANY, 127, limited)
    expected = within_limit(rows, scale) if limited else np.rint(rows / scale[:, None])
    np.testing.assert_array_equal(result, expected)


def test_rows_do_not_depend_on_each_other() -> None:
    rows, scale, moments, _ = problem(20, 6)
    alone = [error_feedback(rows[[row]], scale[[row]], moments, MANY, 127, True)[0] for row in range(6)]
    np.testing.assert_array_equal(error_feedback(rows, scale, moments, MANY, 127, True), alone)


@pytest.mark.parametrize("samples", [10, 1000, MANY])
@pytest.mark.parametrize("taps", [1, 9, 25])
def test_depthwise_rounding_equals_rounding_each_channel_separately(taps: int, samples: int) -> None:
    problems = [problem(taps, 1, seed) for seed in range(5)]
    rows, scale = np.concatenate([one[0] for one in problems]), np.concatenate([one[1] for one in problems])
    moments = np.stack([one[2] for one in problems])
    moments[2] = 0  # a channel with only zero inputs
    result = error_feedback_depthwise(rows, scale, moments, samples, 64)
    for channel in range(5):
        alone = error_feedback(rows[[channel]], scale[[channel]], moments[channel], samples, 64, False)
        np.testing.assert_array_equal(result[channel], alone[0])


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_input_weights_are_not_changed(outputs: int) -> None:
    rows, scale, moments, _ = problem(9, outputs)
    before = rows.copy(), moments.copy()
    error_feedback(rows, scale, moments, MANY, 127, True)
    error_feedback_depthwise(rows, scale, np.stack([moments] * outputs), MANY, 127)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(moments, before[1])


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("inputs", "samples", "outputs"), [(1, 3, 2), (BLOCK, 5, 3), (2 * BLOCK + 23, 40, 7)])
def test_samples_of_many_inputs_give_the_same_integers_as_their_moments(
    inputs: int, samples: int, outputs: int, limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "ROWS_AT_ONCE", 3)
    rows, scale, _, x = problem(inputs, outputs, seed=inputs, steps=140 if limited else 15)
    few = x[:samples].astype(np.float32)
    moments = few.T.astype(np.float64) @ few / samples
    expected = error_feedback(rows, scale, moments, samples, 127, limited)
    np.testing.assert_array_equal(error_feedback_of_samples(rows, scale, few, 127, limited), expected)


def test_samples_without_any_value_round_to_nearest() -> None:
    rows, scale, _, _ = problem(100, 4)
    rounded = error_feedback_of_samples(rows, scale, np.zeros((5, 100), np.float32), 127, False)
    np.testing.assert_array_equal(rounded, np.rint(rows / scale[:, None]))
