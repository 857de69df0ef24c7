"""Channel statistics, compared with float64 over all images in one batch."""

from __future__ import annotations

import numpy as np
import onnx_graphs
import pytest
from consoles import RecordingConsole

from compress.quantization.correction.channels import Channels, channel_statistics
from runtimes.console import SilentConsole
from runtimes.evalset import EvalSet
from runtimes.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def images(count: int) -> EvalSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return EvalSet(pixels, None, tuple(map(str, range(count))), tuple("abcde"), PREPROCESSING, "digest")


@pytest.mark.parametrize(("count", "fixed"), [(1, None), (9, None), (10, 5)])
def test_statistics_equal_those_of_all_images_in_one_batch(count: int, fixed: int | None) -> None:
    model, evalset = onnx_graphs.residual_model(channels=3), images(count)
    values = onnx_graphs.all_values(model, PREPROCESSING.normalize(evalset.images))
    if fixed:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = fixed
    console = RecordingConsole()
    names = ["x", "c1", "a2", "s", "p", "f", "y"]
    statistics = channel_statistics(model, names, evalset, console)
    assert list(statistics) == names
    for name in names:
        flat = np.moveaxis(values[name].astype(np.float64), 1, 0).reshape(values[name].shape[1], -1)
        np.testing.assert_allclose(statistics[name].low, flat.min(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics[name].high, flat.max(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics[name].mean, flat.mean(1), rtol=1e-4, atol=1e-5)
    assert console.events[-1] == ("channel statistics", count, count)


def test_the_mean_can_be_that_of_some_images_only() -> None:
    model, evalset = onnx_graphs.residual_model(channels=3), images(9)
    averaged = np.asarray([1, 4, 5, 8])
    some = channel_statistics(model, ["c1", "y"], evalset, SilentConsole(), averaged)
    every = channel_statistics(model, ["c1", "y"], evalset, SilentConsole())
    taken = channel_statistics(model, ["c1", "y"], evalset.take(averaged), SilentConsole())
    for name, channels in some.items():
        np.testing.assert_array_equal(channels.low, every[name].low)
        np.testing.assert_array_equal(channels.high, every[name].high)
        np.testing.assert_allclose(channels.mean, taken[name].mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(channels.usual, taken[name].reach)
        np.testing.assert_array_equal(every[name].usual, every[name].reach)


def test_the_reach_is_the_largest_absolute_value() -> None:
    channels = Channels(np.asarray([-3.0, 0.0, 1.0]), np.asarray([2.0, 5.0, 4.0]), np.zeros(3), np.ones(3))
    assert channels.reach.tolist() == [3, 5, 4]
