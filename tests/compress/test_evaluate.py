from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress import evaluate as evaluation
from runtimes import images, metrics
from runtimes.artifact import Artifact, Manifest
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

CLASSES = ("cat", "dog", "emu")
TARGET = Target("here", batch=4)


class Colours:
    """A session whose logits are the means of the three channels."""

    runs = 0

    def run(self, pixels: Any) -> Any:
        Colours.runs += 1
        return pixels.mean((2, 3)).astype(np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for index in range(7):
                file = tmp_path / "data" / split / name / f"{index}.png"
                Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(file)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _session(monkeypatch: pytest.MonkeyPatch) -> None:
    Colours.runs = 0
    monkeypatch.setattr(evaluation, "load", lambda artifact, target: Colours())
    monkeypatch.setattr(evaluation, "CHUNK", 5)


def artifact(labels: tuple[str, ...] = CLASSES) -> Artifact:
    manifest = Manifest("0" * 64, 1, "onnx", "float32", "in", (None, 3, 8, 8), "out", Preprocessing(9, 8), labels)
    return Artifact(Path("made.onnx"), manifest)


def run(test: evaluation.TestImages, folder: Path | None = None, *made: Artifact) -> list[evaluation.Evaluation]:
    return evaluation.evaluate(list(made or [artifact()]), test, TARGET, folder, SilentConsole())


def test_the_figures_are_those_of_the_manifests_preprocessing(root: Path) -> None:
    preprocessing, right = Preprocessing(9, 8), []
    for label, name in enumerate(CLASSES):
        for file in sorted((root / "test" / name).iterdir()):
            pixels = preprocessing.normalize(images.read(file, preprocessing)[None])
            right.append(pixels.mean((2, 3)).argmax() == label)
    (one,) = run(evaluation.find_images(f"imagefolder:{root}", None, "test"))
    assert one.accuracy.images == 21
    assert one.accuracy.top1 == pytest.approx(np.mean(right))


def test_it_goes_on_after_a_stop_and_gives_the_same_figures(root: Path, tmp_path: Path) -> None:
    test = evaluation.find_images(f"imagefolder:{root}", None, "test")
    whole = run(test)
    run(test, tmp_path / "out")
    chunks = sorted((tmp_path / "out").rglob("*.npy"))
    assert len(chunks) == 5
    chunks[1].unlink()
    chunks[3].write_bytes(chunks[3].read_bytes()[:100])  # cut off
    Colours.runs = 0
    assert run(test, tmp_path / "out") == whole
    assert Colours.runs == 4  # two chunks of five images, in batches of four


def test_labels_follow_the_artifacts_order_and_the_second_is_compared_with_the_first(root: Path) -> None:
    test = evaluation.find_images(f"imagefolder:{root}", None, "test")
    first, second = run(test, None, artifact(), artifact())
    assert (first.drop_pp, first.agreement) == (None, None)
    assert second.agreement == 1
    assert second.drop_pp is not None
    assert second.drop_pp.value == 0
    (moved,) = run(test, None, artifact(("emu", "cat", "dog")))
    rows = [metrics.confusion_rows(one.accuracy.confusion, 3) for one in (moved, first)]
    assert rows[0][0] == rows[1][2]


def test_artifacts_agree_on_classes_and_not_on_their_places(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has its classes, and so its logits, one place further on: it says the same of every image."""

    class Moved(Colours):
        def run(self, pixels: Any) -> Any:
            return np.roll(super().run(pixels), 1, axis=1)

    moved = artifact(("emu", "cat", "dog"))
    moved = replace(moved, manifest=replace(moved.manifest, sha256="1" * 64))  # other bytes, other answers
    monkeypatch.setattr(evaluation, "load", lambda one, target: Moved() if one is moved else Colours())
    first, second = run(evaluation.find_images(f"imagefolder:{root}", None, "test"), None, artifact(), moved)
    assert second.accuracy.top1 == first.accuracy.top1
    assert second.agreement == 1
    assert second.drop_pp is not None
    assert second.drop_pp.value == 0


def test_an_unknown_class_is_one_line(root: Path) -> None:
    test = evaluation.find_images(f"imagefolder:{root}", None, "test")
    with pytest.raises(InputError, match="does not know the class 'emu' of the data"):
        run(test, None, artifact(("cat", "dog", "fox")))


def test_too_many_unreadable_images_are_told(root: Path) -> None:
    (root / "test" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 21 images cannot be read"):
        run(evaluation.find_images(f"imagefolder:{root}", None, "test"))
