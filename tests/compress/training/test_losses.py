"""Losses against float64 references and the formulas of the papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compress.training.losses import cross_entropy, decoupled_distillation, distillation


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
def test_cross_entropy_equals_the_formula(images: int, classes: int, scale: float, smoothing: float) -> None:
    rng = np.random.default_rng(classes)
    logits = (scale * rng.normal(size=(images, classes))).astype(np.float32)
    labels = rng.integers(0, classes, images)
    value = cross_entropy(smoothing)(torch.empty(0), torch.from_numpy(logits), torch.from_numpy(labels))
    assert value.shape == ()
    assert float(value) == pytest.approx(reference(logits, labels, smoothing), rel=1e-5)


def test_class_counts_add_the_logarithms_of_their_shares_to_the_logits() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(32, 3)).astype(np.float32), rng.integers(0, 3, 32)
    counts = np.asarray([90, 9, 1])
    value = cross_entropy(0.1, counts.tolist())(torch.empty(0), torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(value) == pytest.approx(reference(logits + np.log(counts / 100), labels, 0.1), rel=1e-5)


def test_class_counts_make_a_network_without_information_predict_equal_probabilities() -> None:
    logits = torch.zeros(3, requires_grad=True)
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(2000):
        optimizer.zero_grad()
        cross_entropy(0.0, [90, 9, 1])(torch.empty(0), logits.expand(100, 3), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert logits.softmax(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_class_without_training_images_keeps_the_loss_finite() -> None:
    assert cross_entropy(0.0, [4, 0])(torch.empty(0), torch.zeros(1, 2), torch.tensor([0])).isfinite()


def test_uniform_logits_give_the_logarithm_of_the_number_of_classes() -> None:
    value = cross_entropy(0.3)(torch.empty(0), torch.zeros(4, 10), torch.arange(4))
    assert float(value) == pytest.approx(np.log(10))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(64)
    value = cross_entropy(0.1)(torch.empty(0), logits, labels)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(reference(logits.float().numpy(), labels.numpy(), 0.1), rel=1e-5)


def test_the_gradient_is_probability_minus_target() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0])
    cross_entropy(0.2)(torch.empty(0), logits, labels).backward()  # type: ignore[no-untyped-call]
    target = torch.full((5, 4), 0.05)
    target[torch.arange(5), labels] += 0.8
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - target) / 5)


def shares(logits: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    values = np.exp((logits.astype(np.float64) - logits.max(1, keepdims=True)) / temperature)
    return np.asarray(values / values.sum(1, keepdims=True))


def divergence(teacher: npt.NDArray[Any], student: npt.NDArray[Any]) -> float:
    return float((teacher * np.log(teacher / student)).sum(1).mean())


def problem(classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(classes)
    student, teacher = (2 * rng.normal(size=(16, classes)).astype(np.float32) for _ in range(2))
    return student, teacher, rng.integers(0, classes, 16)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_distillation_equals_hintons_formula(classes: int, share: float, temperature: float) -> None:
    student, teacher, labels = problem(classes)
    loss = distillation(cross_entropy(0.1), lambda images: torch.from_numpy(teacher), share, temperature)
    value = loss(torch.empty(0), torch.from_numpy(student), torch.from_numpy(labels))
    distance = temperature**2 * divergence(shares(teacher, temperature), shares(student, temperature))
    assert float(value) == pytest.approx((1 - share) * reference(student, labels, 0.1) + share * distance, rel=1e-4)


def test_balanced_distillation_compares_both_with_the_frequencies_of_the_classes() -> None:
    student, teacher, labels = problem(3)
    counts, temperature = [60, 30, 10], 2.0
    prior = np.log(np.asarray(counts) / 100)
    answers = lambda images: torch.from_numpy(teacher)  # noqa: E731
    arguments = torch.empty(0), torch.from_numpy(student), torch.from_numpy(labels)
    loss = distillation(cross_entropy(0.0, counts), answers, 0.7, temperature, counts)
    distance = temperature**2 * divergence(
        shares(teacher / temperature + prior, 1.0), shares(student / temperature + prior, 1.0)
    )
    expected = 0.3 * reference(student + prior, labels, 0.0) + 0.7 * distance
    assert float(loss(*arguments)) == pytest.approx(expected, rel=1e-4)
    decoupled = [
        decoupled_distillation(cross_entropy(0.0), answers, 1.0, temperature, 2.0, counts),
        decoupled_distillation(
            cross_entropy(0.0),
            lambda images: answers(images) + torch.from_numpy(prior) * temperature,
            1.0,
            temperature,
            2.0,
        ),
    ]
    adjusted = torch.from_numpy(student + prior * temperature)
    assert float(decoupled[0](*arguments)) == pytest.approx(
        float(decoupled[1](arguments[0], adjusted, arguments[2])), rel=1e-4
    )


def test_a_student_of_a_confident_teacher_prefers_no_class() -> None:
    """The teacher gives the labels back, 9 to 1; a student that sees nothing has to call both classes as likely."""
    labels = torch.tensor([0] * 9 + [1])
    teacher = 20.0 * torch.nn.functional.one_hot(labels, 2).float()
    logits = torch.zeros(2, requires_grad=True)
    gradients = []
    for counts in (None, [9, 1]):
        loss = distillation(cross_entropy(0.0, counts), lambda images: teacher, 0.9, 2.0, counts)
        (gradient,) = torch.autograd.grad(loss(torch.empty(0), logits.expand(10, 2), labels), logits)
        gradients.append(float(gradient[0]))
    assert gradients[0] < -0.1  # towards the frequent class
    assert gradients[1] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("beta", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_decoupled_distillation_equals_zhaos_formula(classes: int, beta: float, temperature: float) -> None:
    student, teacher, labels = problem(classes)
    loss = decoupled_distillation(cross_entropy(0.0), lambda images: torch.from_numpy(teacher), 0.6, temperature, beta)
    value = loss(torch.empty(0), torch.from_numpy(student), torch.from_numpy(labels))
    rows, other = np.arange(16), np.ones((16, classes), bool)
    other[rows, labels] = False
    target, rest = [], []
    for logits in (teacher, student):
        probability = shares(logits, temperature)
        label = probability[rows, labels]
        target.append(np.stack([label, 1 - label], 1))
        rest.append(probability[other].reshape(16, -1) / (1 - label)[:, None])
    distance = temperature**2 * (divergence(*target) + beta * divergence(*rest))
    assert float(value) == pytest.approx(0.4 * reference(student, labels, 0.0) + 0.6 * distance, rel=1e-4)


def test_decoupled_with_hintons_weight_equals_distillation() -> None:
    """Zhao et al., equation 6: KD = TCKD + (1 - p) NCKD; for a single image the weight is a number."""
    student, teacher, labels = (array[:1] for array in problem(10))
    answers = lambda images: torch.from_numpy(teacher)  # noqa: E731
    weight = 1 - float(shares(teacher, 2.0)[0, labels[0]])
    values = [
        float(loss(torch.empty(0), torch.from_numpy(student), torch.from_numpy(labels)))
        for loss in (
            distillation(cross_entropy(0.0), answers, 1.0, 2.0),
            decoupled_distillation(cross_entropy(0.0), answers, 1.0, 2.0, weight),
        )
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, classes).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("taught", [False, True])
def test_the_loss_of_mixed_labels_is_the_mixture_of_their_losses(smoothing: float, taught: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(2, 6, 5, generator=generator)
    loss, images = cross_entropy(smoothing), torch.empty(0)
    if taught:
        loss = distillation(loss, lambda images: answers, 0.3, 2.0)
    first, second = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([4, 1, 0, 2, 3, 1])
    mixed = 0.7 * one_hot(first, 5) + 0.3 * one_hot(second, 5)
    expected = 0.7 * loss(images, logits, first) + 0.3 * loss(images, logits, second)
    torch.testing.assert_close(loss(images, logits, mixed), expected)


def test_decoupled_distillation_raises_for_mixed_labels() -> None:
    loss = decoupled_distillation(cross_entropy(0.1), lambda images: torch.zeros(2, 3), 0.5, 2.0, 2.0)
    with pytest.raises(ValueError, match=r"decoupled distillation needs labels of shape \(N,\), not \(2, 3\)"):
        loss(torch.empty(0), torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
