"""Histograms and their ranges, compared with NumPy on the values and with published figures."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress.quantization import histograms
from compress.quantization.histograms import (
    BINS,
    Histogram,
    entropy_threshold,
    mse_range,
    percentile_range,
    squared_error,
)

Array = np.ndarray
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=30_000)
TENSORS = {
    "normal": NORMAL,
    "shifted": NORMAL + 3,
    "far from zero": RNG.uniform(5, 10, 30_000),
    "negative": -RNG.gamma(2, 1, 30_000),
    "relu": np.maximum(NORMAL, 0),
    "relu6": np.clip(4 * NORMAL + 2, 0, 6),
    "silu": NORMAL * 4 / (1 + np.exp(-NORMAL * 4)),
    "laplace": RNG.laplace(size=30_000),
    "heavy tail": RNG.standard_t(3, 30_000),
}
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram_of(values: Array, magnitudes: bool = False) -> Histogram:
    values = values.astype(np.float32)
    low, high = (0.0, float(np.abs(values).max())) if magnitudes else (float(values.min()), float(values.max()))
    histogram = Histogram(low, high, magnitudes)
    histogram.add(values)
    return histogram


@given(
    hnp.arrays(np.float32, st.integers(2, 300), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.booleans(),
)
def test_every_value_is_counted_in_its_bin(values: Array, magnitudes: bool) -> None:
    counted = np.abs(values) if magnitudes else values
    if counted.min() == counted.max() or (magnitudes and not counted.max()):
        return
    histogram = histogram_of(values, magnitudes)
    below = np.cumsum(histogram.counts)[:-1]
    edges, tolerance = histogram.edges[1:-1, None], (histogram.high - histogram.low) * 1e-9
    assert histogram.counts.sum() == values.size
    assert np.all(below >= (counted.astype(np.float64) < edges - tolerance).sum(axis=1))
    assert np.all(below <= (counted.astype(np.float64) < edges + tolerance).sum(axis=1))


def test_counts_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = NORMAL.astype(np.float32).reshape(10, 30, 100)
    at_once = histogram_of(values)
    monkeypatch.setattr(histograms, "CHUNK", 777)
    in_parts = Histogram(at_once.low, at_once.high)
    for part in values:
        in_parts.add(part)
    assert np.array_equal(at_once.counts, in_parts.counts)


def test_a_large_tensor_needs_no_large_temporaries() -> None:
    values = RNG.random(4_000_000, np.float32)
    histogram = Histogram(0.0, 1.0)
    tracemalloc.start()
    histogram.add(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("percentile", [99.99, 99.9, 95, 60])
def test_percentile_is_numpys_on_the_values_to_within_a_bin(name: str, percentile: float) -> None:
    values = TENSORS[name]
    histogram = histogram_of(values)
    low, high = percentile_range(histogram, percentile)
    cut = 100 - percentile
    if values.min() >= 0:
        quantiles = [0, percentile]
    elif values.max() <= 0:
        quantiles = [cut, 100]
    else:
        quantiles = [cut / 2, 100 - cut / 2]
    # Any value between NumPy's lower and higher percentile is correct, within the width of a bin.
    lower, higher = (np.percentile(values, quantiles, method=method) for method in ("lower", "higher"))
    width = (histogram.high - histogram.low) / BINS
    assert np.all(np.array([low, high]) >= lower - width * 1.001)
    assert np.all(np.array([low, high]) <= higher + width * 1.001)


@given(st.integers(1, 2000), st.floats(50.1, 100), st.integers(0, 2**32 - 1))
def test_percentile_keeps_its_share_of_the_values_and_100_keeps_all(count: int, percentile: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_cauchy(count + 1).astype(np.float32)
    histogram = histogram_of(values)
    low, high = percentile_range(histogram, percentile)
    width = (histogram.high - histogram.low) / BINS
    assert histogram.low <= low <= high + width
    assert high <= histogram.high
    outside = ((values < low - width) | (values > high + width)).sum()
    assert outside <= values.size * (1 - percentile / 100) + 1e-6
    assert percentile_range(histogram, 100) == (histogram.low, histogram.high)


def test_one_spike_in_ten_thousand_is_cut_by_the_default_percentile() -> None:
    values = np.append(RNG.uniform(0, 1, 9_999), 1000)
    assert percentile_range(histogram_of(values), 99.99)[1] < 1.5


def requantized(bins: Array, filled: Array, levels: int) -> Array:
    """Merge bins into levels and spread each over its nonempty bins, as on Migacz's slides."""
    of_level = np.searchsorted(len(bins) * np.arange(levels + 1) // levels, np.arange(len(bins)), "right") - 1
    sharing = np.bincount(of_level, filled, levels)
    mass = np.bincount(of_level, bins, levels)
    return np.where(filled, mass[of_level] / np.maximum(sharing, 1)[of_level], 0)


def divergences(counts: Array, levels: int) -> Array:
    """Return KL(P || Q) for each number of bins from `levels`, by the pseudo-code of the slides."""
    result = []
    for end in range(levels, BINS + 1):
        p = counts[:end].copy()
        p[-1] += counts[end:].sum()
        q = requantized(counts[:end], p > 0, levels)
        if p[-1] > 0 and q[-1] == 0:
            q[-1] = 1e-4
        result.append(scipy.stats.entropy(p, q) if counts[:end].any() else np.inf)
    return np.array(result)


def test_the_reference_for_entropy_reproduces_the_slides() -> None:
    bins = np.array([1.0, 0, 2, 3, 5, 3, 1, 7])
    assert requantized(bins, bins > 0, 2).tolist() == [2, 0, 2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize(("name", "levels"), [("normal", 128), ("laplace", 128), ("heavy tail", 128), ("silu", 128),
                                              ("relu", 256), ("relu6", 256)])  # fmt: skip
def test_entropy_finds_the_smallest_divergence_of_all_candidates(name: str, levels: int) -> None:
    histogram = histogram_of(TENSORS[name], magnitudes=True)
    counts = histogram.counts.astype(np.float64)
    counts[0] = min(counts[0], counts[1])
    expected = divergences(counts, levels)
    chosen = round(entropy_threshold(histogram, levels) / histogram.high * BINS) - levels
    assert expected[chosen] == pytest.approx(expected.min(), rel=1e-6, abs=1e-11)


def test_entropy_clips_a_single_outlier_and_keeps_a_filled_range() -> None:
    # The strongest clipping with 2048 bins and 128 levels is 1/16, at 62.5; the normal values fill 9 bins of 0.5.
    # Slightly larger thresholds merge only empty bins; among equally good thresholds, the largest is returned.
    assert 62.5 < entropy_threshold(histogram_of(np.append(NORMAL, 1000), magnitudes=True), 128) < 80
    uniform = histogram_of(RNG.uniform(0, 3, 3_000_000))
    assert entropy_threshold(uniform, 256) > 2.9


@pytest.mark.parametrize("zeros", [100_000, 10_000_000])
def test_zeros_do_not_shrink_a_range(zeros: int) -> None:
    without = histogram_of(np.maximum(NORMAL, 0)[np.maximum(NORMAL, 0) > 0], magnitudes=True)
    with_zeros = Histogram(without.low, without.high, True, without.counts.copy())
    with_zeros.counts[0] += zeros
    assert entropy_threshold(with_zeros, 256) == entropy_threshold(without, 256)
    assert mse_range(with_zeros) == mse_range(without)


def mean_squared_error(values: Array, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero_point = np.rint(-low / scale)
    restored = (np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale
    return float(np.mean((values - restored) ** 2))


@pytest.mark.parametrize("name", TENSORS)
def test_mse_is_within_half_a_percent_of_the_best_range_of_a_fine_grid(name: str) -> None:
    values = TENSORS[name].astype(np.float32).astype(np.float64)
    least, greatest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    parts = np.linspace(0.04, 1, 33)
    grid = [(low, high) for low in np.unique(least * parts) for high in np.unique(greatest * parts)]
    result = mse_range(histogram_of(values))
    assert least <= result[0] <= 0 <= result[1] <= greatest
    assert mean_squared_error(values, *result) <= 1.005 * min(mean_squared_error(values, *ends) for ends in grid)


@pytest.mark.parametrize("name", ["normal", "far from zero", "negative", "laplace"])
@pytest.mark.parametrize("part", [1.0, 0.6, 0.2])
def test_the_estimated_error_is_that_of_the_values(name: str, part: float) -> None:
    values = TENSORS[name]
    histogram = histogram_of(values)
    ends = part * min(histogram.low, 0.0), part * max(histogram.high, 0.0)
    error = squared_error(histogram.counts.astype(np.float64), histogram.edges, np.array([ends]))[0] / values.size
    assert error == pytest.approx(mean_squared_error(values, *ends), rel=0.02)


@given(hnp.arrays(np.float32, st.integers(2, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_mse_ranges_lie_inside_the_tensors_range_and_include_zero(values: Array) -> None:
    if values.min() == values.max():
        return
    low, high = mse_range(histogram_of(values))
    assert min(float(values.min()), 0) <= low <= 0 <= high <= max(float(values.max()), 0)
    assert low < high


@pytest.mark.parametrize(("draw", "optimum"), [(RNG.standard_normal, 3.92), (RNG.laplace, 9.89)])
def test_mse_finds_the_published_optimum_for_8_bits(draw: object, optimum: float) -> None:
    """Banner et al. 2019: the best clipping in units of sigma (Gauss) or b (Laplace), for two million samples."""
    low, high = mse_range(histogram_of(draw(size=2_000_000)))
    assert (high - low) / 2 == pytest.approx(optimum, rel=0.05)
