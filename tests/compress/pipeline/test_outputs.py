"""The results of a run after training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compress.pipeline import outputs
from compress.pipeline.images import RunImages
from compress.pipeline.networks import train_networks
from compress.pipeline.steps import Steps
from compress.recipe.recipe import Recipe


@pytest.mark.usefixtures("exports")
def test_artifacts_are_measured_and_networks_predict(
    make_recipe: Callable[..., Recipe], make_images: Callable[[Steps], RunImages], new_steps: Callable[[], Steps]
) -> None:
    stages = [{"stage": "prune", "macs": 0.7, "importance": "l2"}]
    recipe = make_recipe(quantize=None, stages=stages, targets=[{"name": "here"}, "raspberry-pi-5"])
    images = outputs.run_images(recipe, make_images(new_steps()).source, new_steps())
    networks = train_networks(recipe, images.steps, images)
    built = outputs.build(recipe, images, networks, {"here": None, "raspberry-pi-5": "it is elsewhere"})
    assert built.baseline is not None
    assert [item.artifact for item in built.measurements] == [built.baseline.path.name, built.float32.path.name]
    assert {row.target.name for row in built.unmeasured} == {"raspberry-pi-5"}
    assert built.artifacts == [built.baseline, built.float32]
    assert built.val_metrics.keys() == {"here"}
    predicted = outputs.predictions(networks, images, recipe.device)
    assert predicted.keys() == {"0-prune"}
    assert len(predicted["0-prune"]) == len(images.data.test)
