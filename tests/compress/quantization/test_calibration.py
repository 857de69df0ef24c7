"""Ranges of each calibration method for any batch size, constant memory, the cache, and errors for NaN and infinity."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnx_graphs
import pytest
from consoles import RecordingConsole
from onnx import helper
from pydantic import TypeAdapter, ValidationError

from compress.quantization import calibration, ort_graph
from compress.quantization.calibration import calibrate
from compress.quantization.config import CalibrationConfig, RangeMethod
from compress.quantization.histograms import Histogram, entropy_threshold
from runtimes import evalset
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing

METHODS = get_args(RangeMethod)
TENSORS = ["x", "a1", "a2", "c3", "s", "f"]
Array = np.ndarray


def preprocessing_of(side: int) -> Preprocessing:
    return Preprocessing(side, side, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def set_of(pixels: Array) -> evalset.EvalSet:
    names = tuple(f"{index}.png" for index in range(len(pixels)))
    return evalset.EvalSet(pixels, None, names, ("a", "b"), preprocessing_of(pixels.shape[1]), "digest of the pixels")


def noise(count: int, side: int = 8) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture
def images() -> evalset.EvalSet:
    return set_of(noise(37))


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx_graphs.residual_model(channels=3)


def ranges_of(
    model: onnx.ModelProto,
    images: evalset.EvalSet,
    method: RangeMethod,
    tensors: list[str] | None = None,
    **settings: float,
) -> dict[str, tuple[float, float]]:
    return calibrate(
        model, TENSORS if tensors is None else tensors, images, CalibrationConfig(method, **settings), SilentConsole()
    )


def pixelwise(kind: str) -> onnx.ModelProto:
    """A network whose tensor `t` is, for each pixel's x: spike: x, and 10 for 255; scaled by 0; constant 5."""
    node = helper.make_node
    nodes = {
        "spike": [node("Sub", ["x", "edge"], ["d"]), node("Relu", ["d"], ["r"]), node("Mul", ["r", "steep"], ["m"]),
                  node("Add", ["x", "m"], ["t"])],
        "zero": [node("Mul", ["x", "nothing"], ["t"])],
        "constant": [node("Mul", ["x", "nothing"], ["m"]), node("Add", ["m", "five"], ["t"])],
    }[kind]  # fmt: skip
    values = {"edge": 1.98, "steep": 400.0, "nothing": 0.0, "five": 5.0}
    used = {name for each in nodes for name in each.input}
    constants = {name: np.asarray(value, np.float32) for name, value in values.items() if name in used}
    last = node("GlobalAveragePool", ["t"], ["y"])
    return onnx_graphs.make_model([*nodes, last], constants, channels=3, side=64)


def test_min_max_equals_that_of_all_images_in_one_batch(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    everything = images.preprocessing.normalize(images.images)
    ranges = ranges_of(model, images, "min-max")
    assert list(ranges) == TENSORS
    assert ranges["x"] == (float(everything.min()), float(everything.max()))
    for name in TENSORS[1:]:
        values = onnx_graphs.tensor_values(model, name, everything)
        assert ranges[name] == pytest.approx((float(values.min()), float(values.max())), rel=1e-6)


def test_moving_average_is_updated_by_each_image_in_order(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    ranges = ranges_of(model, images, "moving-average")
    for name in TENSORS[1:]:
        values = onnx_graphs.tensor_values(model, name, images.preprocessing.normalize(images.images)).reshape(37, -1)
        weights = 0.01 * 0.99 ** np.arange(36, -1, -1)
        weights[0] = 0.99**36  # the first image initializes the average
        expected = (weights @ values.min(axis=1), weights @ values.max(axis=1))
        assert ranges[name] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_percentile_is_numpys_on_the_values_to_within_a_bin(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    ranges = ranges_of(model, images, "percentile", percentile=98)
    everything = images.preprocessing.normalize(images.images)
    for name, cut in (("a1", (0, 98)), ("c3", (1, 99))):
        values = onnx_graphs.tensor_values(model, name, everything)
        width = np.ptp(values) / 2048
        lower, higher = (np.percentile(values, cut, method=method) for method in ("lower", "higher"))
        assert np.all(np.array(ranges[name]) >= lower - width * 1.001)
        assert np.all(np.array(ranges[name]) <= higher + width * 1.001)


def test_entropy_gives_256_levels_to_one_sign_and_128_to_each_of_two(
    model: onnx.ModelProto, images: evalset.EvalSet
) -> None:
    ranges = ranges_of(model, images, "entropy")
    for name, levels in (("a1", 256), ("c3", 128)):
        values = onnx_graphs.tensor_values(model, name, images.preprocessing.normalize(images.images))
        histogram = Histogram(0.0, float(np.abs(values).max()), magnitudes=True)
        histogram.add(values)
        threshold = entropy_threshold(histogram, levels)
        expected = max(float(values.min()), -threshold), min(float(values.max()), threshold)
        assert ranges[name] == pytest.approx(expected, rel=1e-5)


def test_every_method_has_its_rule() -> None:
    assert calibration.MERGE_RULES.keys() == set(METHODS)
    assert calibration.HISTOGRAM_RULES.keys() < set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_do_not_depend_on_the_batch_size(
    method: RangeMethod, model: onnx.ModelProto, images: evalset.EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ranges_of(model, images, method)
    for size in (1, 3, 37):
        monkeypatch.setattr(ort_graph, "BATCH", size)
        assert ranges_of(model, images, method) == {name: pytest.approx(ends, rel=1e-5)
                                                    for name, ends in expected.items()}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [10, 50])
def test_a_fixed_batch_counts_every_image_once(
    method: RangeMethod, batch: int, model: onnx.ModelProto, images: evalset.EvalSet
) -> None:
    expected = ranges_of(model, images, method)
    for shape in (model.graph.input[0], model.graph.output[0]):
        shape.type.tensor_type.shape.dim[0].dim_value = batch
    for name, result in ranges_of(model, images, method).items():
        assert result == pytest.approx(expected[name], rel=1e-5)


def sqnr_db(values: Array, low: float, high: float) -> float:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero_point = np.rint(-low / scale)
    restored = (np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale
    return float(10 * np.log10(np.sum(values**2) / np.sum((values - restored) ** 2)))


def test_every_other_method_beats_min_max_if_one_image_of_32_has_an_outlier() -> None:
    """By at least 2 dB on the 31 other images, whose values have a deviation of 0.3; the outlier is 10."""
    pixels = np.random.default_rng(0).normal(127.5, 20, (32, 64, 64, 3)).clip(20, 235).astype(np.uint8)
    pixels[11, 30, 30, 1] = 255
    model = pixelwise("spike")
    ordinary = preprocessing_of(64).normalize(np.delete(pixels, 11, axis=0)).astype(np.float64)
    reached = {}
    for method in METHODS:
        low, high = ranges_of(model, set_of(pixels), method, ["t"])["t"]
        reached[method] = sqnr_db(ordinary, low, high)
    worst = reached.pop("min-max")
    assert {method: sqnr - worst for method, sqnr in reached.items() if sqnr < worst + 2} == {}


@pytest.mark.parametrize("method", METHODS)
def test_ranges_of_constant_and_sparse_tensors(method: RangeMethod) -> None:
    images = set_of(noise(3, 64))
    assert ranges_of(pixelwise("zero"), images, method, ["t"])["t"] == (0, 0)
    assert ranges_of(pixelwise("constant"), images, method, ["t"])["t"] == ((0, 5) if method == "mse" else (5, 5))
    lone, most = np.full((3, 64, 64, 3), 128, np.uint8), (128 / 255 - 0.5) / 0.25
    lone[1, 5, 5, 0] = 255
    low, high = ranges_of(pixelwise("spike"), set_of(lone), method, ["t"])["t"]
    assert most < high <= 10.1
    assert low == pytest.approx(0 if method == "mse" else most, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_images(method: RangeMethod, model: onnx.ModelProto) -> None:
    few, many = set_of(noise(8, 32)), set_of(noise(64, 32))
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = 32
    peaks = []
    for images in (few, few, many):  # the first run allocates memory that is kept
        tracemalloc.start()
        ranges_of(model, images, method)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1] + 50_000


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_is_not_finite_names_tensor_and_image(
    method: RangeMethod, model: onnx.ModelProto, images: evalset.EvalSet
) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(weight.dims, 3e38, np.float32), "w1"))
    with pytest.raises(InputError, match=r"tensor a1 is NaN or infinite for the image \d+\.png"):
        ranges_of(model, images, method)


@pytest.mark.parametrize("batch", [None, 10])
def test_one_bad_image_among_good_ones_is_the_one_named(batch: int | None, model: onnx.ModelProto) -> None:
    pixels = np.full((37, 8, 8, 3), 127, np.uint8)
    pixels[19] = 255
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(weight.dims, 2e37, np.float32), "w1"))
    if batch:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    with pytest.raises(InputError, match=r"for the image 19\.png"):
        ranges_of(model, set_of(pixels), "min-max", ["a1"])


def test_an_error_without_images(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    with pytest.raises(InputError, match="there are no images"):
        ranges_of(model, images.head(0), "min-max")


def test_a_tensor_without_a_batch_axis_has_the_range_of_all_its_values(
    model: onnx.ModelProto, images: evalset.EvalSet
) -> None:
    weights = onnx_graphs.constants_of(model)["w4"]
    assert ranges_of(model, images, "min-max", ["w4"]) == {"w4": (float(weights.min()), float(weights.max()))}


class CountedPixels:
    """Pixels that count how many images are read."""

    def __init__(self, pixels: Array) -> None:
        self.pixels, self.taken = pixels, 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: Array) -> Array:
        self.taken += len(indices)
        return self.pixels[indices]


@pytest.fixture
def cached(model: onnx.ModelProto, images: evalset.EvalSet, tmp_path: Path) -> Callable[..., int]:
    """Return a function that calibrates with a cache and returns how many images were read."""

    def read(
        method: RangeMethod = "mse", percentile: float = 99.99, graph: onnx.ModelProto = model,
        tensors: list[str] = TENSORS, **changes: object,
    ) -> int:  # fmt: skip
        pixels = CountedPixels(images.images)
        changed = dataclasses.replace(images, images=pixels, **changes)
        settings = CalibrationConfig(method, percentile)
        ranges = calibrate(graph, tensors, changed, settings, SilentConsole(), tmp_path / "cache")
        assert ranges == calibrate(graph, tensors, images, settings, SilentConsole())
        assert list(ranges) == tensors
        return pixels.taken

    return read


def test_a_second_calibration_reads_no_image(cached: Callable[..., int], tmp_path: Path) -> None:
    assert [cached(), cached()] == [2 * 37, 0]
    assert [cached("min-max"), cached("min-max")] == [37, 0]
    assert cached(tensors=TENSORS[::-1]) == 0
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_cache_key_covers_all_inputs(
    cached: Callable[..., int], model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached("min-max")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(model.graph.initializer[0]), "w1")
    )
    assert cached("min-max", graph=changed)
    assert cached("min-max", tensors=TENSORS[1:])
    assert cached("entropy")
    assert cached("min-max", percentile=99.0)
    assert cached("min-max", sha256="another")
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "code_digest", lambda: "another")
        assert cached("min-max")
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "package_versions", lambda names: {"onnxruntime": "another"})
        assert cached("min-max")
    assert not cached("min-max")


def test_the_cache_key_covers_preprocessing(model: onnx.ModelProto, images: evalset.EvalSet, tmp_path: Path) -> None:
    other = dataclasses.replace(images, preprocessing=dataclasses.replace(images.preprocessing, std=(0.5, 0.5, 0.5)))
    result = [
        calibrate(model, ["x"], each, CalibrationConfig(), SilentConsole(), tmp_path)["x"] for each in (images, other)
    ]
    assert result == [(-2, 2), (-1, 1)]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"ranges": {}}', b'{"ranges": {"x": [1], "a1": [0, 1]}}',
     b'{"ranges": {"x": ["?", 1], "a1": [0, 1]}}', b'{"ranges": {"x": [NaN, 1], "a1": [0, 1]}}',
     b'{"ranges": {"x": [2, 1], "a1": [0, 1]}}', b'{"ranges": {"x": 5, "a1": [0, 1]}}'],
)  # fmt: skip
def test_a_damaged_cache_file_is_replaced(content: bytes, cached: Callable[..., int], tmp_path: Path) -> None:
    assert cached("min-max", tensors=["x", "a1"]) == 37
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(content)
    assert cached("min-max", tensors=["x", "a1"]) == 37
    assert path.read_bytes() == whole
    path.write_bytes(whole[: len(whole) // 2])
    assert cached("min-max", tensors=["x", "a1"]) == 37


def test_progress_covers_both_passes(model: onnx.ModelProto, images: evalset.EvalSet) -> None:
    for method, total in (("min-max", 37), ("entropy", 74)):
        console = RecordingConsole()
        calibrate(model, ["a1"], images, CalibrationConfig(method), console)
        assert console.events[-1] == ("calibrate", total, total)
        assert [done for _, done, _ in console.events] == sorted({done for _, done, _ in console.events})


def test_invalid_settings_are_refused() -> None:
    for fields in ({"method": "kl"}, {"percentile": 50}, {"percentile": 100.1}, {"percentile": float("nan")}):
        with pytest.raises(ValueError, match="must have a"):
            CalibrationConfig(**fields)
    assert CalibrationConfig() == CalibrationConfig("min-max", 99.99)
    recipes = TypeAdapter(CalibrationConfig)
    assert recipes.validate_python({"method": "mse"}) == CalibrationConfig("mse")
    for fields in ({"metod": "mse"}, {"method": "kl"}, {"percentile": 20}):
        with pytest.raises(ValidationError):
            recipes.validate_python(fields)
