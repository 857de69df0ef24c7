"""Files that a published report leaves in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_report import GATE, measurement, publish
from PIL import Image

from compress.report import report
from compress.report.publish import THUMBNAIL_SIDE, write_thumbnails
from runtimes import evalset
from runtimes.artifact import Artifact
from runtimes.preprocessing import CHANNEL_COUNTS, Preprocessing


def test_report_documents_and_artifacts_are_written(tmp_path: Path) -> None:
    published = publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), GATE)
    assert report.read(tmp_path / "run") == published
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"report.json", "report.html", "report.md", "accuracy_latency.svg", "artifacts", "flipped"}
    copied = Artifact.load(tmp_path / "run/artifacts/model-float32.onnx")
    assert copied.path.read_bytes() == b"model"
    assert copied.manifest == published.artifacts[0].manifest


def test_shown_flips_have_thumbnails_and_older_ones_go(tmp_path: Path) -> None:
    old = tmp_path / "run/flipped/399.jpg"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    published = publish(tmp_path, measurement("int8", 44, 1.0, 2_000_000), None)
    shown = {f"{flip.index}.jpg" for flip in published.flips["board"].shown}
    assert {path.name for path in old.parent.iterdir()} == shown == {"40.jpg", "41.jpg", "42.jpg", "43.jpg"}
    with Image.open(old.parent / "40.jpg") as picture:
        assert max(picture.size) <= THUMBNAIL_SIDE


@pytest.mark.parametrize(("channels", "mode"), [("grey", "L"), ("rgba", "RGB"), ("rgb", "RGB")])
def test_thumbnails_show_images_of_any_channels_and_shape(tmp_path: Path, channels: Any, mode: str) -> None:
    count = CHANNEL_COUNTS[channels]
    preprocessing = Preprocessing(20, (20, 90), mean=(0.5,) * count, std=(0.5,) * count, channels=channels)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *preprocessing.image_shape), np.uint8)
    images = evalset.write(tmp_path / "set", pixels, None, ("a", "b"), ("x", "y"), preprocessing)
    write_thumbnails(tmp_path / "flipped", images, {1})
    with Image.open(tmp_path / "flipped" / "1.jpg") as picture:
        assert (picture.mode, picture.width / picture.height) == (mode, 4.5)


def test_the_same_outputs_give_the_same_json(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        publish(tmp_path / name, measurement("int8", 44, 1.0, 2_000_000), GATE)
        texts.append(json.loads((tmp_path / name / "run/report.json").read_text()))
    assert texts[0] == texts[1]
