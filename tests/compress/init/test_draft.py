"""The drafted recipe: its decisions and its text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from coloured_folders import make_classes

from compress.init.draft import Draft, draft
from compress.init.start import Start
from compress.init.survey import Survey, survey
from compress.recipe import recipe as recipes
from compress.recipe.network_defaults import IMAGENET, usual
from runtimes.console import SilentConsole
from runtimes.preprocessing import Preprocessing

LITE = usual({"arch": "efficientnet_lite"})
LITE0 = Start({"arch": "efficientnet_lite", "size": 0, "weights": "package:lite"}, LITE, "Lite of a package")
RANDOM = Start({"arch": "mobilenet_v2", "width": 0.5, "weights": None}, IMAGENET, "random", "install better ones")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Three classes of 50, 45 and 40 images of 40 px."""
    root = make_classes(tmp_path_factory.mktemp("init") / "My flowers!", {"a": 50, "b": 45, "c": 40}, side=40)
    return survey(root, SilentConsole())


def read(drafted: Draft, folder: Path) -> recipes.Recipe:
    path = folder / "recipe.yaml"
    path.write_text(drafted.text("about 5 min"))
    return recipes.load(path)


@pytest.mark.parametrize("start", [LITE0, RANDOM], ids=["trained", "random"])
def test_the_text_is_the_recipe_with_comments(flowers: Survey, start: Start, tmp_path: Path) -> None:
    drafted = draft(flowers, start, "cpu")
    text = drafted.text("about 5 min")
    assert yaml.safe_load(text) == drafted.sections()
    assert read(drafted, tmp_path) == drafted.recipe()
    assert ("freeze: ['*bn*']" in text) is (start is LITE0)
    assert "# Recipe for 135 images of 3 classes; takes about 5 min" in text
    assert f"# Weights: {start.source}." in text
    assert ("# install better ones." in text) is (start is RANDOM)
    assert max(len(line) for line in text.splitlines() if line.startswith("#")) <= 120
    assert len(text.splitlines()) < 40


def test_names_and_paths_in_comments_stay_whole(flowers: Survey) -> None:
    path = "/data/" + "-".join(["weights"] * 30)
    assert f" {path}.\n" in draft(flowers, replace(LITE0, source=f"of {path}"), "cpu").text("about 5 min")


def test_a_comment_names_the_splits_that_the_seed_decides(flowers: Survey, tmp_path: Path) -> None:
    assert "become val and test." in draft(flowers, LITE0, "cpu").text("about 5 min")
    for side, split in ((8, "train"), (9, "test")):
        make_classes(tmp_path / "x" / split, {"a": 12, "b": 12}, side=side)
    assert "become val." in draft(survey(tmp_path / "x", SilentConsole()), LITE0, "cpu").text("about 5 min")


def test_preprocessing_is_that_of_the_weights_at_the_side_of_the_images(flowers: Survey) -> None:
    preprocessing = draft(flowers, LITE0, "cpu").recipe().preprocessing
    assert preprocessing == replace(LITE, resize=64, crop=64)


def test_crops_and_channels_that_suit_the_images_are_suggested(flowers: Survey, tmp_path: Path) -> None:
    images = survey(make_classes(tmp_path / "x", {"a": 12, "b": 12}, 64, "L", width=250), SilentConsole())
    drafted = draft(images, LITE0, "cpu")
    text = " ".join(drafted.text("about 5 min").replace("\n# ", " ").split())
    assert "crop: [64, 256] uses more." in text
    assert "All images are grey." in text
    assert "replace mean and std by channels: 1, mean: 0.5, std: 0.5." in text
    assert drafted.recipe().preprocessing == replace(LITE, resize=64, crop=64)
    assert "grey" not in draft(flowers, LITE0, "cpu").text("about 5 min")


def test_weights_of_a_run_with_other_inputs_keep_them(flowers: Survey, tmp_path: Path) -> None:
    own = Preprocessing(30, (24, 80), mean=(0.4,), std=(0.2,), channels="grey")
    drafted = draft(flowers, replace(RANDOM, preprocessing=own), "cpu")
    assert read(drafted, tmp_path).preprocessing == own


def test_name_root_and_seed_are_those_of_the_folder(flowers: Survey) -> None:
    recipe = draft(flowers, LITE0, "cpu").recipe()
    assert recipe.name == "My-flowers"
    assert recipe.data.root == flowers.root
    assert recipe.data.seed == flowers.config.seed
    assert recipe.data.test_share == 0.3


def test_few_images_are_quantized_only(flowers: Survey) -> None:
    recipe = draft(flowers, LITE0, "cpu").recipe()
    assert [stage.stage for stage in recipe.stages] == ["train"]
    assert not recipe.stages[0].balance_classes
    assert recipe.quantize is not None
    assert recipe.gate is not None
    assert recipe.gate.metric == "top1"
    assert recipe.gate.min_speedup_p50 == 1.0


def test_many_images_are_pruned_and_distilled(flowers: Survey) -> None:
    data = flowers.data
    many = replace(flowers, data=replace(data, **{split: 40 * data.split(split) for split in ("train", "val", "test")}))
    recipe = draft(many, LITE0, "cpu").recipe()
    assert [stage.stage for stage in recipe.stages] == ["train", "prune", "distill"]
    assert recipe.gate is not None
    assert recipe.gate.min_speedup_p50 == 1.5


def test_imbalanced_classes_are_trained_and_judged_by_their_mean(tmp_path: Path) -> None:
    images = survey(make_classes(tmp_path / "x", {"good": 240, "bad": 90}, side=8), SilentConsole())
    recipe = draft(images, LITE0, "cpu").recipe()
    gate = recipe.gate
    assert recipe.stages[0].balance_classes
    assert gate is not None
    assert gate.metric == "balanced_accuracy"
    assert gate.min_accuracy == 0.6


def test_a_share_of_unreadable_images_is_allowed(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "x", {"good": 30, "bad": 30}, side=8)
    (root / "good" / "broken.png").write_bytes(b"x")
    assert draft(survey(root, SilentConsole()), LITE0, "cpu").recipe().max_unreadable_images == 0.02


def test_a_network_that_int8_hardly_makes_faster_has_no_limit_on_the_speed(flowers: Survey) -> None:
    start = Start({"arch": "mobilenet_v3", "size": "small", "weights": "x.pth"}, IMAGENET, "a file")
    gate = draft(flowers, start, "cpu").recipe().gate
    assert gate is not None
    assert gate.min_speedup_p50 is None
