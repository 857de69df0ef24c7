"""The steps of a search and the search: against float64 references, and on networks that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from onnx import helper, numpy_helper

from compress.quantization import post_training
from compress.quantization.channels import channel_statistics
from compress.quantization.config import Quantize
from compress.quantization.equalization import equalize
from compress.quantization.recovery import analytic_bias, correct_biases, recover
from compress.quantization.schemes import SCHEMES
from compress.quantization.session import logits
from export.layers import layers_of, nearest, overflowing_neighbours
from export.plan import make_plan
from export.quantize import Quantized, insert_qdq
from runtimes import evalset
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def silent(*_: object) -> None:
    """Show nothing."""


def make_images(folder: Path, count: int, seed: int = 0, labels: bool = False) -> evalset.EvalSet:
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 256, (count, 1, 1, 3)) + rng.normal(0, 30, (count, 8, 8, 3))  # neighbours are correlated
    classes = tuple("abcde")
    given = rng.integers(0, 5, count) if labels else None
    names = tuple(f"{index}.png" for index in range(count))
    return evalset.write(folder, flat.clip(0, 255).astype(np.uint8), given, names, classes, PREPROCESSING)


def watched(model: onnx.ModelProto, images: evalset.EvalSet, scheme: str) -> dict:
    return channel_statistics(model, post_training._watched(model, SCHEMES[scheme]), images, silent)


def quantized(model: onnx.ModelProto, statistics: dict, scheme: str) -> Quantized:
    ranges = {name: (float(known.low.min()), float(known.high.max())) for name, known in statistics.items()}
    return insert_qdq(model, ranges, SCHEMES[scheme])


def sqnr_db(expected: np.ndarray, answered: np.ndarray) -> float:
    return float(
        10 * np.log10(np.sum(expected.astype(np.float64) ** 2) / max(float(np.sum((expected - answered) ** 2)), 1e-30))
    )


def test_the_analytic_bias_keeps_the_mean_output(tmp_path: Path) -> None:
    model = onnx_graphs.residual_model(channels=3)
    images = make_images(tmp_path, 32)
    layer = layers_of(model)["pointwise"]
    weights = nearest(layer, "unknown", 0.01)
    mean = np.random.default_rng(0).uniform(0, 3, layer.weight.shape[1])
    moved = analytic_bias(layer, weights, mean)
    dequantized = weights.integers.reshape(weights.integers.shape[:2]) * weights.scale[:, None]
    assert np.allclose(layer.weight[:, :, 0, 0] @ mean + layer.bias, dequantized @ mean + moved)
    assert len(images) == 32


def leaning_model() -> onnx.ModelProto:
    """Weights that all round up, inputs that are all positive: rounding to nearest moves every mean."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.3, (16, 3, 1, 1)).astype(np.float32)
    second = (rng.integers(-10, 11, (5, 16, 1, 1)) + 0.45).astype(np.float32) / 127
    second[:, 0] = 1.0
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2", "b2"], ["d"], name="second"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
    ]
    constants = {"w1": first, "b1": np.full(16, 2, np.float32), "w2": second, "b2": np.zeros(5, np.float32)}
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


def test_analytic_bias_correction_helps_where_rounding_leans(tmp_path: Path) -> None:
    model, images = leaning_model(), make_images(tmp_path, 32)
    statistics = watched(model, images, "x86-vnni")
    before = quantized(model, statistics, "x86-vnni")
    expected = logits(model, images)
    plain = sqnr_db(expected, logits(before.model, images))
    correct_biases(model, before, SCHEMES["x86-vnni"], statistics)
    assert sqnr_db(expected, logits(before.model, images)) > plain + 6


def unequal_model(clip: bool = False) -> onnx.ModelProto:
    """A tensor whose channels differ by a factor of 1,000, behind Relu (or Clip), through an Add and a pool."""
    rng = np.random.default_rng(0)
    size = np.geomspace(0.003, 3, 16).astype(np.float32)
    w1 = rng.normal(0, 1, (16, 3, 3, 3)).astype(np.float32) * size[:, None, None, None]
    w2 = (
        rng.normal(0, 1, (16, 16, 1, 1)).astype(np.float32) / size[None, :, None, None] * size[:, None, None, None] / 16
    )
    w3 = rng.normal(0, 1, (5, 16)).astype(np.float32) / size
    activation = (
        helper.make_node("Clip", ["c", "zero", "six"], ["r"], name="clip") if clip
        else helper.make_node("Relu", ["c"], ["r"], name="relu")
    )  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="first", pads=[1] * 4), activation,
        helper.make_node("Conv", ["r", "w2"], ["d"], name="second"),
        helper.make_node("Add", ["r", "d"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm", transB=1),
    ]  # fmt: skip
    constants = {"w1": w1, "b1": size, "w2": w2, "w3": w3, "b3": np.ones(5, np.float32)}
    if clip:
        constants |= {"zero": np.asarray(0, np.float32), "six": np.asarray(6, np.float32)}
    return onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)


@pytest.mark.parametrize("clip", [False, True])
def test_equalization_changes_no_answer_of_any_image(tmp_path: Path, clip: bool) -> None:
    model, images = unequal_model(clip), make_images(tmp_path, 16)
    statistics = watched(model, images, "x86-vnni")
    equal = equalize(model, statistics, make_plan(model, SCHEMES["x86-vnni"]).ranged)
    assert bool(equal.factors) != clip  # behind a Clip nothing is scaled, as the Add ties it to the rest
    far = np.random.default_rng(5).normal(0, 20, (8, 3, 8, 8)).astype(np.float32)
    assert sqnr_db(onnx_graphs.run_model(model, far), onnx_graphs.run_model(equal.model, far)) > 100


def test_equalization_makes_channels_equally_large_and_helps(tmp_path: Path) -> None:
    model, images = unequal_model(), make_images(tmp_path, 32)
    statistics = watched(model, images, "x86-vnni")
    equal = equalize(model, statistics, make_plan(model, SCHEMES["x86-vnni"]).ranged)
    scaled = equal.scale(statistics)
    measured = watched(equal.model, images, "x86-vnni")
    for name, known in scaled.items():
        assert np.allclose(known.reach, measured[name].reach, rtol=1e-3), name
    assert measured["r"].reach.max() / measured["r"].reach.min() < 40  # by 1,000 before; the least are left at 1/32
    expected = logits(model, images)
    before = sqnr_db(expected, logits(quantized(model, statistics, "x86-vnni").model, images))
    after = sqnr_db(expected, logits(quantized(equal.model, scaled, "x86-vnni").model, images))
    assert after > before + 10


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_recovery_helps_on_other_images_and_is_reproducible(tmp_path: Path, scheme: str) -> None:
    model = onnx_graphs.residual_model(channels=3)
    images, others = make_images(tmp_path / "a", 64), make_images(tmp_path / "b", 64, seed=1)
    statistics = watched(model, images, scheme)
    before = quantized(model, statistics, scheme)
    after = [quantized(model, statistics, scheme) for _ in range(2)]
    for one in after:
        recover(model, one, SCHEMES[scheme], images, statistics, silent, parent=tmp_path)
    expected = logits(model, others)
    assert sqnr_db(expected, logits(after[0].model, others)) > sqnr_db(expected, logits(before.model, others)) + 1
    assert after[0].model.SerializeToString() == after[1].model.SerializeToString()
    assert not list(tmp_path.glob(".activations*"))
    if scheme == "x86-avx2":
        layers = layers_of(model)
        assert not any(overflowing_neighbours(layers[name], weights) for name, weights in after[0].weights.items()
                       if not layers[name].depthwise)  # fmt: skip


def search(tmp_path: Path, settings: Quantize, labels: bool = False, count: int = 40) -> tuple:
    model = onnx_graphs.residual_model(channels=3)
    images = make_images(tmp_path / "images", count, labels=labels)
    return post_training.quantize(model, images, SCHEMES["generic"], settings, lambda *_: False, silent, silent)


def test_attempts_are_told_in_order_and_only_better_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, found = search(tmp_path, Quantize())
    steps = [attempt.step for attempt in found.attempts]
    assert steps[:2] == ["nearest rounding", "analytic bias correction"]
    highest = -np.inf
    for attempt in found.attempts:
        assert attempt.kept == (attempt.sqnr_db > highest)
        highest = max(highest, attempt.sqnr_db)
    assert best.sqnr_db == highest

    def spoil(model: onnx.ModelProto, given: Quantized, *_: object) -> None:
        for tensor in given.model.graph.initializer:
            if tensor.name.endswith("_weight_quantized"):
                zeros = np.zeros_like(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))

    monkeypatch.setattr(post_training, "recover", spoil)
    spoiled, again = search(tmp_path / "again", Quantize())
    assert [attempt.kept for attempt in again.attempts if "error feedback" in attempt.step] == [False]
    assert spoiled.sqnr_db < best.sqnr_db


def test_held_out_images_are_not_those_to_round_by(tmp_path: Path) -> None:
    images = make_images(tmp_path, 400)
    fit, held_out = post_training.split(images)
    assert (len(fit), len(held_out)) == (128, 64)
    assert not set(fit.names) & set(held_out.names)
    few = make_images(tmp_path / "few", 9)
    assert post_training.split(few) == (few, few)


def test_the_budget_gives_layers_back_to_float(tmp_path: Path) -> None:
    free, _ = search(tmp_path, Quantize())
    wanted = Quantize(min_agreement=1.0, max_top1_drop_pp=0)
    best, found = search(tmp_path / "b", wanted, labels=True)
    assert best.agreement == 1 or any("most sensitive" in attempt.step for attempt in found.attempts)
    ranked = post_training.sensitivities(found, free)
    assert set(ranked) == set(free.quantized.weights)


def test_a_drop_in_top1_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels; give min_agreement"):
        search(tmp_path, Quantize(max_top1_drop_pp=0.5))


def test_a_layer_that_reads_a_product_with_a_number_is_rounded_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["h"], name="half"),
        helper.make_node("Conv", ["h", "w", "b"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
    ]
    constants = {"half": np.asarray(0.5, np.float32), "w": rng.normal(0, 1, (5, 3, 3, 3)).astype(np.float32),
                 "b": rng.normal(0, 1, 5).astype(np.float32)}  # fmt: skip
    model = onnx_graphs.make_model(nodes, constants, channels=3, output_rank=2)
    images = make_images(tmp_path, 16)
    statistics = watched(model, images, "x86-vnni")
    after = quantized(model, statistics, "x86-vnni")
    recover(model, after, SCHEMES["x86-vnni"], images, statistics, silent)
    assert sqnr_db(logits(model, images), logits(after.model, images)) > 30
