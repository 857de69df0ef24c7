"""Inspection of a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coloured_folders import make_classes
from PIL import Image

from compress.init.survey import Survey, notes, survey, table, warnings
from runtimes.console import SilentConsole
from runtimes.errors import InputError


def surveyed(root: Path) -> Survey:
    return survey(root, SilentConsole())


def test_classes_splits_and_sides_are_counted(tmp_path: Path) -> None:
    result = surveyed(make_classes(tmp_path / "flowers", {"rose": 60, "tulip": 40}, side=24))
    assert result.counts.sum() == result.total == 100
    assert result.counts.sum(axis=0).tolist() == [60, 40]
    assert result.typical_side == 24
    assert result.imbalance == 1.5
    assert result.modes == {"RGB": 100}
    rows = [row[0] for row in table(result).rows]
    assert rows == ["rose", "tulip", "all"]
    assert table(result).rows[-1][1:] == (*(str(split.sum()) for split in result.counts), "100")
    assert result.test_labels() is not None


def test_a_small_folder_is_split_by_the_seed_that_gives_each_class_its_share(tmp_path: Path) -> None:
    result = surveyed(make_classes(tmp_path / "flowers", dict.fromkeys("abc", 20), side=8))
    assert result.config.test_share == result.test_share == 0.3
    assert np.abs(result.counts[2] - 6).max() <= 1
    assert surveyed(tmp_path / "flowers").config == result.config


def test_folders_of_splits_stay_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("val", 4), ("test", 5)):
        make_classes(tmp_path / "flowers" / split, {"rose": count, "tulip": count}, side=8 + count)
    result = surveyed(tmp_path / "flowers")
    assert result.counts.tolist() == [[12, 12], [4, 4], [5, 5]]
    assert result.test_share is None
    assert result.config.seed == 0
    assert notes(result) == [f"{split}: {tmp_path / 'flowers' / split}" for split in ("train", "val", "test")]


def test_split_off_are_the_splits_without_a_folder(tmp_path: Path) -> None:
    for side, split in ((8, "train"), (9, "Test (5 images)")):
        make_classes(tmp_path / "flowers" / split, {"rose": 12, "tulip": 12}, side=side)
    result = surveyed(tmp_path / "flowers")
    assert result.split_off == ("val",)
    assert result.test_share is None
    assert surveyed(tmp_path / "flowers" / "train").split_off == ("val", "test")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_folder_without_training_images_is_refused(tmp_path: Path, split: str) -> None:
    make_classes(tmp_path / "flowers" / split, {"rose": 3, "tulip": 3}, side=8)
    with pytest.raises(InputError, match="holds no training images"):
        surveyed(tmp_path / "flowers")


def test_test_images_without_labels_are_in_the_table(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "flowers" / "train", {"rose": 12, "tulip": 12}, side=8).parent
    make_classes(root, {"test": 5}, side=9)
    rows = {row[0]: row[1:] for row in table(surveyed(root)).rows}
    assert rows["without a class"] == ("0", "0", "5", "5")
    assert rows["all"][3] == "29"


def test_a_link_to_a_folder_is_kept(tmp_path: Path) -> None:
    make_classes(tmp_path / "version1", {"rose": 12, "tulip": 12}, side=8)
    (tmp_path / "current").symlink_to(tmp_path / "version1")
    assert surveyed(tmp_path / "current").root == tmp_path / "current"


def test_of_many_classes_the_largest_and_the_smallest_are_shown(tmp_path: Path) -> None:
    result = surveyed(make_classes(tmp_path / "many", {f"c{index:02d}": 3 + index for index in range(25)}, side=8))
    names = [row[0] for row in table(result).rows]
    assert names[:2] == ["c24", "c23"]
    assert names[5:] == ["… 15 more classes", "c04", "c03", "c02", "c01", "c00", "all"]


def test_what_makes_results_worse_is_named(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "odd", {"many": 90, "few": 12}, side=40)
    Image.new("RGB", (400, 100)).save(root / "many" / "long.png")
    (root / "many" / "broken.png").write_bytes(b"x")
    (root / "many" / "copy.png").write_bytes((root / "many" / "0.png").read_bytes())
    (root / "few" / "copy.png").write_bytes((root / "few" / "0.png").read_bytes())
    lines = warnings(surveyed(root), 96)
    assert any(line.startswith("imbalanced: 91 images of 'many', 12 of 'few'; ") for line in lines), lines
    for part in (
        "too few images to train on in 1 of 2 classes: 'few' (",
        "sizes differ: the shorter sides are 40 to 100 px, with a median of 40",
        "long images, of which only the centre square is used: 1; ",
        "images enlarged more than twice: 102, from 40 px on the shorter side to 96",
        "images that can't be read, left out: 1, for example many/broken.png",
    ):
        assert [line for line in lines if part in line], part


@pytest.mark.parametrize(
    ("height", "width", "crop"),
    [(64, 64, None), (64, 80, None), (64, 256, (48, 192)), (60, 20, (128, 48)), (50, 90, (48, 96))],
)
def test_long_images_suggest_a_crop_in_their_proportions(
    tmp_path: Path, height: int, width: int, crop: tuple[int, int] | None
) -> None:
    result = surveyed(make_classes(tmp_path / "long", {"a": 6, "b": 6}, height, width=width))
    assert result.long_crop(48) == crop
    assert any(f"set crop: {list(crop or ())} in the recipe" in line for line in warnings(result, 48)) is (
        crop is not None
    )


def test_images_of_different_proportions_suggest_no_crop(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "mixed", {"a": 10, "b": 10}, 20, width=80)
    for index in range(0, 10, 2):
        for name in "ab":
            path = root / name / f"{index}.png"
            Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert surveyed(root).long_crop(48) is None


def test_only_images_without_colours_are_grey(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "grey", {"a": 6, "b": 6}, mode="L")
    assert surveyed(root).is_grey
    Image.new("RGB", (20, 80)).save(root / "a" / "colour.png")
    assert not surveyed(root).is_grey


def test_a_good_folder_has_no_warnings(tmp_path: Path) -> None:
    result = surveyed(make_classes(tmp_path / "good", {"a": 40, "b": 50}, side=64))
    assert warnings(result, 64) == []
    assert notes(result) == []


@pytest.mark.parametrize(
    ("mode", "line"),
    [("L", "20 of 20 images are grey; they are read as RGB"),
     ("I;16", "20 of 20 images have 16 bits per pixel; they are scaled to 8 bits")],
)  # fmt: skip
def test_grey_and_16_bit_images_are_named(tmp_path: Path, mode: str, line: str) -> None:
    root = make_classes(tmp_path / "grey", {"a": 10, "b": 10}, mode="L")
    if mode == "I;16":
        for path in root.rglob("*.png"):
            Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    assert line in notes(surveyed(root))


def test_copies_of_test_images_are_not_trained_on(tmp_path: Path) -> None:
    root = tmp_path / "copies"
    for split, side in (("train", 32), ("val", 31), ("test", 30)):
        make_classes(root / split, {"a": 10, "b": 10}, side)
    for index in range(3):
        (root / "train" / "a" / f"copy{index}.png").write_bytes((root / "test" / "a" / f"{index}.png").read_bytes())
    result = surveyed(root)
    assert len(result.data.train) == 20
    (line,) = (line for line in warnings(result, 32) if "copies" in line)
    assert line.startswith("copies, left out: 3, for example train/a/copy0.png: identical to the test image")


def test_without_training_images_is_an_error(tmp_path: Path) -> None:
    make_classes(tmp_path / "flowers" / "test", {"rose": 5, "tulip": 5})
    with pytest.raises(InputError, match="holds no training images; give a folder with train/CLASS"):
        surveyed(tmp_path / "flowers")
