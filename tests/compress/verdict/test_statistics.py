from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, ttest_ind

from compress.verdict import statistics
from compress.verdict.statistics import (
    Estimate,
    agreement,
    holm,
    images_to_settle,
    mcnemar,
    slowdown,
    speedup,
    top1_drop_pp,
)

Z95 = 1.6448536269514722  # upper 5 % of the normal distribution


def paired(
    both: int, lost: int, gained: int, neither: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return predictions of two networks and labels with the given paired table."""
    labels = np.zeros(both + lost + gained + neither, np.int64)
    first = np.repeat([0, 0, 1, 1], [both, lost, gained, neither])
    second = np.repeat([0, 2, 0, 2], [both, lost, gained, neither])
    return first, second, labels


def score(lost: int, gained: int, images: int, drop: float) -> float:
    """Return the score statistic; the restricted estimate is found by search, not by Tango's closed formula."""
    same = images - lost - gained

    def unlikely(gains: float) -> float:
        shares = np.asarray([gains + drop, gains, 1 - 2 * gains - drop])
        counts = np.asarray([lost, gained, same])
        return -float(np.sum(counts * np.log(np.maximum(shares, 1e-300))))

    lowest, highest = max(0.0, -drop), (1 - drop) / 2
    gains = minimize_scalar(unlikely, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - images * drop) / math.sqrt(images * (2 * gains + drop - drop**2))


@pytest.mark.parametrize("table", [(80, 7, 3, 10), (600, 13, 2, 41), (90, 0, 9, 10), (200, 5, 5, 100)])
def test_the_bounds_are_where_the_score_statistic_reaches_the_normal_quantile(table: tuple[int, int, int, int]) -> None:
    _, lost, gained, _ = table
    estimate = top1_drop_pp(*paired(*table), 0.95)
    assert estimate.value == pytest.approx(100 * (lost - gained) / sum(table))
    assert score(lost, gained, sum(table), estimate.low / 100) == pytest.approx(Z95, abs=1e-3)
    assert score(lost, gained, sum(table), estimate.high / 100) == pytest.approx(-Z95, abs=1e-3)


@pytest.mark.parametrize("table", [(0, 50, 0, 0), (0, 0, 50, 0), (0, 2, 6, 0), (10, 0, 0, 0)])
def test_the_bounds_stay_within_what_is_possible(table: tuple[int, int, int, int]) -> None:
    estimate = top1_drop_pp(*paired(*table), 0.95)
    assert -100 <= estimate.low <= estimate.value <= estimate.high <= 100


def test_no_difference_on_few_images_is_no_certainty() -> None:
    few, many = (top1_drop_pp(*paired(images, 0, 0, 0), 0.95) for images in (20, 2000))
    assert few.low < 0 < few.high
    assert few.high > 5 > 0.2 > many.high


def test_a_gain_is_a_drop_below_zero_and_mirrors_it() -> None:
    drop, gain = top1_drop_pp(*paired(50, 8, 2, 5), 0.9), top1_drop_pp(*paired(50, 2, 8, 5), 0.9)
    assert (gain.value, gain.low, gain.high) == pytest.approx((-drop.value, -drop.high, -drop.low))


def test_only_right_and_wrong_count() -> None:
    first, second, labels = paired(5, 3, 2, 4)
    assert top1_drop_pp(first, np.where(second == 2, 9, second), labels, 0.95) == top1_drop_pp(
        first, second, labels, 0.95
    )


def test_more_confidence_reaches_further() -> None:
    low, high = (top1_drop_pp(*paired(80, 7, 3, 10), confidence) for confidence in (0.9, 0.99))
    assert high.low < low.low < low.value < low.high < high.high
    half = top1_drop_pp(*paired(80, 7, 3, 10), 0.5)
    assert half.low == pytest.approx(half.high)


@pytest.mark.parametrize(
    ("images", "lost", "gained"),
    [(656, 0.03, 0.01), (656, 0.02, 0.02), (200, 0.05, 0.02), (100, 0.1, 0.1)],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_each_bound_holds_as_often_as_it_says(images: int, lost: float, gained: float, confidence: float) -> None:
    rng = np.random.default_rng(images)
    truth, runs = 100 * (lost - gained), 2000
    tables = rng.multinomial(images, [0.9 - lost - gained, lost, gained, 0.1], runs)
    estimates = [top1_drop_pp(*paired(*table), confidence) for table in tables]
    assert sum(estimate.low <= truth for estimate in estimates) / runs >= confidence - 0.02
    assert sum(estimate.high >= truth for estimate in estimates) / runs >= confidence - 0.02


@pytest.mark.parametrize(("images", "drop"), [(656, 0.02), (300, 0.0111), (2000, 0.0025)])
def test_a_network_at_the_limit_passes_no_oftener_than_allowed(images: int, drop: float) -> None:
    """No prediction is gained, so the number of lost images is binomial; exact, without simulation."""
    passed = 0.0
    for lost in range(images):
        if top1_drop_pp(*paired(images - lost, lost, 0, 0), 0.95).high > 100 * drop:
            break
        passed += math.comb(images, lost) * drop**lost * (1 - drop) ** (images - lost)
    assert passed <= 0.05 + 0.02


def test_the_speedup_of_steady_runs_is_their_ratio() -> None:
    estimate = speedup(np.full((10, 5), 6.0), np.full((10, 5), 2.0), 0.95)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3.0, 3.0, 3.0))


def test_of_few_sessions_the_speedup_is_the_geometric_mean_with_students_bounds() -> None:
    slow = [[1.0, 8.0, 9.0], [8.0, 8.0, 100.0], [6.0, 6.0, 6.0]]
    fast = [[2.0, 2.0, 3.0], [4.0, 4.0, 50.0], [1.0, 2.0, 2.0]]
    logs = np.log([4.0, 2.0, 3.0])
    estimate = speedup(slow, fast, 0.95)
    half_width = 2.919985580355516 * logs.std(ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert estimate.value == pytest.approx(24 ** (1 / 3))
    assert estimate.low == pytest.approx(math.exp(logs.mean() - half_width))
    assert estimate.high == pytest.approx(math.exp(logs.mean() + half_width))


def test_sessions_are_what_is_independent() -> None:
    """Blocks of one session are alike: only their sessions' number makes the interval narrow."""
    rng = np.random.default_rng(0)
    loaded = np.repeat(rng.normal(0, 0.05, (2, 4, 1)), 10, axis=1)
    slow, fast = np.exp(loaded) * (1 + 0.001 * rng.random((2, 40, 5)))
    as_blocks, as_sessions = speedup(slow, fast, 0.95), speedup(slow, fast, 0.95, 4)
    assert as_sessions.high / as_sessions.low > 2 * as_blocks.high / as_blocks.low - 1
    assert as_sessions.value == pytest.approx(as_blocks.value, rel=2e-2)


def test_bursts_in_a_few_sessions_do_not_spoil_the_bounds() -> None:
    rng = np.random.default_rng(0)
    slow, fast = np.exp(0.01 * rng.normal(size=(2, 15, 1))) * np.ones((2, 15, 3))
    calm = speedup(2 * slow, fast, 0.95, 15)
    slow[[3, 11]] *= 1.8
    fast[7] *= 2.5
    spoiled = speedup(2 * slow, fast, 0.95, 15)
    assert spoiled.value == pytest.approx(calm.value, rel=0.01)
    assert spoiled.high / spoiled.low < 1.5 * calm.high / calm.low


def test_a_stall_that_hits_both_leaves_the_ratio_in_place() -> None:
    rng = np.random.default_rng(0)
    pace = np.repeat(np.where(np.arange(20) % 4 == 0, 3.0, 1.0)[:, None], 10, axis=1)
    noise = 1 + 0.01 * rng.random((2, 20, 10))
    estimate = speedup(4 * pace * noise[0], 2 * pace * noise[1], 0.95)
    assert estimate.value == pytest.approx(2, abs=0.02)
    assert 1.95 < estimate.low <= estimate.value <= estimate.high < 2.05


def test_noise_between_blocks_widens_the_interval() -> None:
    rng = np.random.default_rng(0)

    def width(noise: float) -> float:
        slow, fast = np.exp(noise * rng.normal(size=(2, 30, 1))) * np.ones((2, 30, 10))
        estimate = speedup(slow, fast, 0.95)
        assert estimate.low <= estimate.value <= estimate.high
        return estimate.high - estimate.low

    assert width(0.3) > 3 * width(0.03)


def test_the_speedup_is_the_same_each_time() -> None:
    slow, fast = np.random.default_rng(0).gamma(9, size=(2, 12, 4))
    assert speedup(slow, fast, 0.9) == speedup(slow, fast, 0.9)


@pytest.mark.parametrize("sessions", [1, 5])
def test_the_bounds_of_the_speedup_hold_as_often_as_they_say(sessions: int) -> None:
    """Runs of a block are alike, and so are blocks of a session; the ratio of the true medians is 2."""
    rng, runs, blocks = np.random.default_rng(0), 600, 30
    above = below = 0
    for _ in range(runs):
        pace = 0.05 * rng.normal(size=(blocks, 1))
        own = 0.1 * rng.normal(size=(2, blocks, 1)) + 0.05 * rng.normal(size=(2, blocks, 5))
        if sessions > 1:
            own += np.repeat(0.2 * rng.normal(size=(2, sessions, 1)), blocks // sessions, axis=1)
        estimate = speedup(4 * np.exp(pace + own[0]), 2 * np.exp(pace + own[1]), 0.9, sessions)
        above, below = above + (estimate.low <= 2), below + (estimate.high >= 2)
    assert 0.87 <= above / runs <= 0.93
    assert 0.87 <= below / runs <= 0.93


def test_the_bounds_of_a_slowdown_hold_as_often_as_they_say() -> None:
    rng, runs = np.random.default_rng(0), 600
    covered = 0
    for _ in range(runs):
        sides = []
        for ratio in (0.5, 0.6):
            speed = rng.lognormal(0, 0.5)
            own = np.repeat(0.03 * rng.normal(size=(2, 5, 1)), 6, axis=1) + 0.01 * rng.normal(size=(2, 30, 4))
            sides.append((speed * np.exp(own[0]), ratio * speed * np.exp(own[1])))
        estimate = slowdown(sides[0], sides[1], 0.975, (5, 5))
        covered += estimate.low <= 1.2 <= estimate.high
    assert 0.93 <= covered / runs <= 0.97


def test_a_slowdown_of_steady_runs_is_the_ratio_of_ratios() -> None:
    one, other = np.ones((4, 3)), np.ones((6, 2))
    estimate = slowdown((one, 2 * one), (3 * other, 9 * other), 0.95)
    half_width = Z95 * math.sqrt(2) * statistics.OCCASION_SD  # two occasions, and nothing else
    expected = (1.5, 1.5 * math.exp(-half_width), 1.5 * math.exp(half_width))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected)


def test_bounds_of_a_slowdown_are_yuens_where_occasions_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "OCCASION_SD", 0.0)
    rng = np.random.default_rng(0)
    before, after = rng.gamma(9, size=(15, 1)), 1.1 * rng.gamma(9, size=(12, 1))
    ones = [np.ones_like(side) for side in (before, after)]
    estimate = slowdown((ones[0], before), (ones[1], after), 0.975, (15, 12))
    theirs = ttest_ind(np.log(after[:, 0]), np.log(before[:, 0]), equal_var=False, trim=0.2).confidence_interval(0.95)
    assert (math.log(estimate.low), math.log(estimate.high)) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (7, 2), (2, 7), (60, 40)])
def test_mcnemar_is_the_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5, "greater").pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected)


def test_holm_is_the_published_example_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_number_of_images_settles_it() -> None:
    drop = top1_drop_pp(*paired(700, 24, 16, 260), 0.95)
    needed = images_to_settle(drop, 1000, 0.5, 0.95)
    assert needed is not None
    times = needed / 1000
    before, after = (
        top1_drop_pp(*paired(*(round(share * count) for count in (700, 24, 16, 260))), 0.95)
        for share in (0.8 * times, 1.2 * times)
    )
    assert before.low < 0.5 < before.high
    assert after.low > 0.5


def test_on_the_limit_no_number_of_images_settles_it() -> None:
    assert images_to_settle(Estimate(0.5, -0.2, 1.2), 1000, 0.5, 0.95) is None


@pytest.mark.parametrize("same", [28, 25, 15, 1])
def test_bounds_of_agreement_are_those_of_the_posterior_with_jeffreys_prior(same: int) -> None:
    def density(share: float) -> float:
        return share ** (same - 0.5) * (1 - share) ** (30 - same - 0.5)

    estimate = agreement([0] * 30, [0] * same + [1] * (30 - same), 0.95)
    whole = quad(density, 0, 1)[0]
    assert quad(density, 0, estimate.low)[0] / whole == pytest.approx(0.05, abs=1e-6)
    assert quad(density, 0, estimate.high)[0] / whole == pytest.approx(0.95, abs=1e-6)
    assert estimate.value == same / 30


def test_bounds_of_agreement_end_at_none_and_all() -> None:
    assert agreement([0, 1], [0, 1], 0.95).high == 1.0
    assert agreement([0, 1], [1, 0], 0.95).low == 0.0


def test_the_bounds_of_a_latency_hold_a_difference_between_occasions() -> None:
    runs = np.random.default_rng(0).uniform(0.95, 1.05, (30, 10))
    estimate = statistics.latency_ms(5 * runs, 0.95, 3)
    assert estimate.value == pytest.approx(5, rel=0.01)
    assert estimate.low < 5 * (1 - statistics.OCCASION_SD) < 5 * (1 + statistics.OCCASION_SD) < estimate.high
    constant = statistics.latency_ms(np.full((4, 2), 3.0), 0.95)
    assert np.log(constant.high / 3) == pytest.approx(1.645 * statistics.OCCASION_SD, rel=0.01)
