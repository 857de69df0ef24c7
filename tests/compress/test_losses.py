from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compress.losses import cross_entropy


def reference(logits: npt.NDArray[Any], labels: npt.NDArray[Any], smoothing: float) -> float:
    """Return the mean over images of `-sum(target * log softmax)` in float64."""
    values = logits.astype(np.float64)
    log_shares = values - np.log(np.exp(values - values.max(1, keepdims=True)).sum(1, keepdims=True))
    log_shares -= values.max(1, keepdims=True)
    classes = values.shape[1]
    target = np.full(values.shape, smoothing / classes)
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return float(-(target * log_shares).sum(1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("images", "classes", "scale"), [(1, 2, 1), (32, 1000, 5), (7, 3, 80)])
def test_cross_entropy_is_that_of_the_formula(images: int, classes: int, scale: float, smoothing: float) -> None:
    rng = np.random.default_rng(classes)
    logits = (scale * rng.normal(size=(images, classes))).astype(np.float32)
    labels = rng.integers(0, classes, images)
    found = cross_entropy(smoothing)(torch.empty(0), torch.from_numpy(logits), torch.from_numpy(labels))
    assert found.shape == ()
    assert float(found) == pytest.approx(reference(logits, labels, smoothing), rel=1e-5)


def test_uniform_logits_cost_the_logarithm_of_the_classes() -> None:
    found = cross_entropy(0.3)(torch.empty(0), torch.zeros(4, 10), torch.arange(4))
    assert float(found) == pytest.approx(np.log(10))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(64)
    found = cross_entropy(0.1)(torch.empty(0), logits, labels)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(reference(logits.float().numpy(), labels.numpy(), 0.1), rel=1e-5)


def test_the_gradient_is_share_minus_target() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    cross_entropy(0.2)(torch.empty(0), logits, labels).backward()  # type: ignore[no-untyped-call]
    target = torch.full((5, 4), 0.05)
    target[torch.arange(5), labels] += 0.8
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - target) / 5)
