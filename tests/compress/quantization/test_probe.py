"""The probe of this machine's kernels, and that limited weights never overflow them."""

from __future__ import annotations

import numpy as np
import pytest

from compress.quantization import probe
from export.layers import LARGEST_NEIGHBOUR_SUM, neighbour_sums, to_rows
from runtimes import environment


def test_limited_weights_are_exact_in_every_kernel_of_this_machine() -> None:
    assert probe.probe().limited_is_exact


def test_saturation_is_that_of_the_instruction_set() -> None:
    result = probe.probe()
    saturating = environment.detect_instruction_set() == "x86-avx2"
    assert (result.dense_saturates, result.gemm_saturates) == (saturating, saturating)
    assert not result.depthwise_saturates


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (4, 5, 1, 1), (8, 19)])
def test_limited_weights_reach_the_limit(shape: tuple[int, ...]) -> None:
    rows = to_rows(probe._limited(shape).astype(np.float64), 0)
    pairs = neighbour_sums(rows)
    assert pairs.max() == LARGEST_NEIGHBOUR_SUM
    assert (pairs[:, : rows.shape[1] // 2] == LARGEST_NEIGHBOUR_SUM).all()
    assert 255 * pairs.max() <= 32767 < 255 * (LARGEST_NEIGHBOUR_SUM + 1)


def test_a_wrong_sum_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with smaller inputs stands in for one that saturates."""

    class Saturating(probe.OrtGraph):
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return super().run({name: np.minimum(value, 128) for name, value in inputs.items()})

    monkeypatch.setattr(probe, "OrtGraph", Saturating)
    result = probe.probe()
    assert result.dense_saturates
    assert result.depthwise_saturates
    assert result.gemm_saturates
    assert not result.limited_is_exact
