"""Accuracy of artifacts on a data set: figures, comparison, interruptions, and tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consoles import RecordingConsole
from PIL import Image

from compress import evaluate as evaluation
from compress.images.copies import digests_of
from compress.recipe import named_data
from runtimes import environment, evalset, images, metrics
from runtimes.artifact import Artifact, Manifest
from runtimes.console import SilentConsole
from runtimes.errors import CompressError, InputError
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

CLASSES = ("cat", "dog", "emu")
PREPROCESSING = Preprocessing(9, 8)
TARGET = Target("here", batch=4)


class ChannelMeans:
    """A session whose logits are the means of the three channels."""

    runs = 0

    def run(self, pixels: Any) -> Any:
        ChannelMeans.runs += 1
        return (pixels.mean((2, 3)).astype(np.float32),)

    def close(self) -> None:
        pass


class ConstantClass(ChannelMeans):
    """A session that always predicts the first class."""

    def run(self, pixels: Any) -> Any:
        return (np.tile(np.asarray([1, 0, 0], np.float32), (len(pixels), 1)),)


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


@pytest.fixture
def labelled_images(root: Path) -> evaluation.TestImages:
    return evaluation.find_images(f"imagefolder:{root}", None, "test")


@pytest.fixture(autouse=True)
def _session(monkeypatch: pytest.MonkeyPatch) -> None:
    ChannelMeans.runs = 0
    monkeypatch.setattr(evaluation, "load", lambda artifact, target: ChannelMeans())
    monkeypatch.setattr(evaluation, "CHUNK", 5)


def artifact(labels: tuple[str, ...] = CLASSES, **fields: Any) -> Artifact:
    manifest = Manifest("0" * 64, 1, "onnx", "float32", "in", (None, 3, 8, 8), "out", PREPROCESSING, labels)
    return Artifact(Path("model.onnx"), replace(manifest, **fields))


def run(test: evaluation.TestImages, folder: Path | None = None, *artifacts: Artifact) -> list[evaluation.Evaluation]:
    return evaluation.evaluate(list(artifacts or [artifact()]), test, TARGET, folder, SilentConsole())


def test_the_figures_are_those_of_the_manifests_preprocessing(
    root: Path, labelled_images: evaluation.TestImages
) -> None:
    correct = []
    for label, name in enumerate(CLASSES):
        for file in sorted((root / "test" / name).iterdir()):
            pixels = PREPROCESSING.normalize(images.read(file, PREPROCESSING)[None])
            correct.append(pixels.mean((2, 3)).argmax() == label)
    (result,) = run(labelled_images)
    assert result.accuracy.images == 21
    assert result.accuracy.top1 == pytest.approx(np.mean(correct))


def test_an_evaluation_set_gives_the_same_figures_as_its_files(
    root: Path, labelled_images: evaluation.TestImages, tmp_path: Path
) -> None:
    files = [root / "test" / name / f"{index}.png" for name in CLASSES for index in range(7)]
    pixels = np.stack([images.read(file, PREPROCESSING) for file in files])
    labels = np.repeat(np.arange(3), 7)
    evalset.write(tmp_path / "set", pixels, labels, tuple(map(str, files)), CLASSES, PREPROCESSING)
    (prepared,) = run(evaluation.find_images(None, tmp_path / "set", None))
    (decoded,) = run(labelled_images)
    assert (prepared.accuracy, prepared.calibration) == (decoded.accuracy, decoded.calibration)


def test_an_interrupted_evaluation_resumes_with_the_same_figures(
    labelled_images: evaluation.TestImages, tmp_path: Path
) -> None:
    whole = run(labelled_images)
    run(labelled_images, tmp_path / "out")
    chunks = sorted((tmp_path / "out").rglob("*.npy"))
    assert len(chunks) == 5
    chunks[1].unlink()
    chunks[3].write_bytes(chunks[3].read_bytes()[:100])  # truncated
    ChannelMeans.runs = 0
    assert run(labelled_images, tmp_path / "out") == whole
    assert ChannelMeans.runs == 4  # two chunks of five images, in batches of four


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "1" * 64}, {"output": "probabilities"}, {"session_options": {"a": "b"}}],
)
def test_logits_of_another_file_or_other_settings_are_not_reused(
    labelled_images: evaluation.TestImages, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run(labelled_images, tmp_path / "out")
    before = ChannelMeans.runs
    run(labelled_images, tmp_path / "out", artifact(**changes))
    assert ChannelMeans.runs == 2 * before
    run(labelled_images, tmp_path / "out", artifact(**changes))
    assert ChannelMeans.runs == 2 * before


def test_logits_of_another_runtime_version_or_machine_are_not_reused(
    labelled_images: evaluation.TestImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(labelled_images, tmp_path / "out")
    before, described = ChannelMeans.runs, environment.describe()
    newer = replace(described, versions={**described.versions, "onnxruntime": "999"})
    monkeypatch.setattr(environment, "describe", lambda: newer)
    run(labelled_images, tmp_path / "out")
    assert ChannelMeans.runs == 2 * before


def test_progress_counts_images_to_the_end(labelled_images: evaluation.TestImages) -> None:
    console = RecordingConsole()
    evaluation.evaluate([artifact()], labelled_images, TARGET, None, console)
    assert [done for _, done, _ in console.events] == [4, 5, 9, 10, 14, 15, 19, 20, 21]
    assert {(what, total) for what, _, total in console.events} == {("evaluate model", 21)}


def test_labels_follow_the_artifacts_order_and_the_second_is_compared_with_the_first(
    labelled_images: evaluation.TestImages,
) -> None:
    first, second = run(labelled_images, None, artifact(), artifact())
    assert (first.drop_pp, first.agreement) == (None, None)
    assert second.agreement == 1
    assert second.drop_pp is not None
    assert second.drop_pp.value == 0
    (moved,) = run(labelled_images, None, artifact(("emu", "cat", "dog")))
    rows = [metrics.confusion_rows(result.accuracy.confusion, 3) for result in (moved, first)]
    assert rows[0][0] == rows[1][2]


def test_classes_are_compared_in_the_composed_form(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / CLASSES[0]).rename(root / split / "caf\u00e9")
    images = evaluation.find_images(f"imagefolder:{root}", None, "test")
    (result,) = run(images, None, artifact(("cafe\u0301", *CLASSES[1:])))
    assert result.accuracy.images == 21


def test_artifacts_agree_on_classes_and_not_on_their_places(
    labelled_images: evaluation.TestImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has its classes, and so its logits, one place further on: it predicts the same for every image."""

    class Moved(ChannelMeans):
        def run(self, pixels: Any) -> Any:
            return (np.roll(super().run(pixels)[0], 1, axis=1),)

    moved = artifact(("emu", "cat", "dog"), sha256="1" * 64)
    monkeypatch.setattr(evaluation, "load", lambda file, target: Moved() if file is moved else ChannelMeans())
    first, second = run(labelled_images, None, artifact(), moved)
    assert second.accuracy.top1 == first.accuracy.top1
    assert second.agreement == 1
    assert second.drop_pp is not None
    assert second.drop_pp.value == 0


def test_an_unreadable_image_counts_nowhere(
    root: Path, labelled_images: evaluation.TestImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MAX_UNREADABLE", 0.05)
    (root / "test" / "cat" / "0.png").write_bytes(b"no image")
    (result,) = run(labelled_images)
    assert result.accuracy.images == 20
    assert [Path(name).name for name in result.unreadable] == ["0.png"]
    assert [row.images for row in result.per_class()] == [6, 7, 7]


def test_too_many_unreadable_images_are_an_error(root: Path, labelled_images: evaluation.TestImages) -> None:
    (root / "test" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 21 images cannot be read, for example .*0\.png; at most 1%"):
        run(labelled_images)


def test_images_that_become_unreadable_during_the_evaluation_are_an_error(
    root: Path, labelled_images: evaluation.TestImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MAX_UNREADABLE", 0.05)

    class Removing(ChannelMeans):
        def close(self) -> None:
            (root / "test" / "cat" / "0.png").write_bytes(b"no image")

    monkeypatch.setattr(evaluation, "load", lambda artifact, target: Removing())
    with pytest.raises(CompressError, match="the readable images changed during the evaluation"):
        run(labelled_images, None, artifact(), artifact(sha256="1" * 64))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            artifact(("cat", "dog", "fox")),
            "model.onnx: does not know the class 'emu' of the data; its 3 classes are cat, ",
        ),
        (artifact(input_shape=(1, 3, 8, 8)), "model.onnx: its batch is fixed at 1; set --batch to that"),
    ],
)
def test_an_artifact_that_does_not_fit_the_images_is_an_error_before_any_work(
    labelled_images: evaluation.TestImages, file: Artifact, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(labelled_images, None, artifact(), file)
    assert str(caught.value).startswith(message)
    assert ChannelMeans.runs == 0


def test_an_artifact_of_one_class_is_not_judged(labelled_images: evaluation.TestImages) -> None:
    with pytest.raises(InputError, match="has one output"):
        evaluation.evaluate([artifact(("cat",))], labelled_images, TARGET, None, SilentConsole())


def test_an_evaluation_set_with_another_preprocessing_is_an_error(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    evalset.write(tmp_path, pixels, np.asarray([0, 1]), ("a", "b"), CLASSES, Preprocessing(10, 8))
    with pytest.raises(InputError, match="its preprocessing differs from that of the evaluation set"):
        run(evaluation.find_images(None, tmp_path, None))


def test_exactly_one_source_of_images_is_needed(root: Path, tmp_path: Path) -> None:
    for data, folder in ((None, None), (f"imagefolder:{root}", tmp_path)):
        with pytest.raises(InputError, match="give either --data NAME:ROOT"):
            evaluation.find_images(data, folder, "test")


def test_images_without_labels_are_an_error(tmp_path: Path) -> None:
    evalset.write(tmp_path, np.zeros((2, 8, 8, 3), np.uint8), None, ("a", "b"), CLASSES, PREPROCESSING)
    with pytest.raises(InputError, match="its images have no labels; accuracy needs them"):
        evaluation.find_images(None, tmp_path, None)


def test_files_that_were_left_out_are_named(root: Path) -> None:
    (root / "test" / CLASSES[0] / "x.heic").write_bytes(b"x")
    images = evaluation.find_images(f"imagefolder:{root}", None, "test")
    (result,) = run(images)
    line = f"extension .heic, which can't be read as an image, for example {root}/test/{CLASSES[0]}/x.heic"
    assert f"left out: 1 file: {line}" in images.notes
    assert result.to_json()["notes"] == images.notes


def test_the_json_has_totals_and_classes_but_no_confusion(labelled_images: evaluation.TestImages) -> None:
    (result,) = run(labelled_images)
    content = json.loads(json.dumps(result.to_json()))
    assert "confusion" not in json.dumps(content)
    assert content["top1"] == result.accuracy.top1
    assert content["images"] == 21
    assert [row["class"] for row in content["per_class"]] == list(CLASSES)
    assert content["per_class"][0]["f1"] == result.accuracy.f1[0]
    assert content["balanced_accuracy"] == pytest.approx(np.mean(result.accuracy.recall))
    assert content["macro_f1"] == pytest.approx(np.mean(result.accuracy.f1))


def test_the_table_shows_a_loss_as_a_negative_change(
    labelled_images: evaluation.TestImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One predicts the first class for everything and so 7 of 21 images correctly; the other predicts all correctly."""
    correct, constant = artifact(), artifact(sha256="1" * 64)
    monkeypatch.setattr(evaluation, "load", lambda file, target: ConstantClass() if file is constant else Oracle())

    class Oracle(ChannelMeans):
        def __init__(self) -> None:
            self.labels = iter(labelled_images.labels)

        def run(self, pixels: Any) -> Any:
            return (np.eye(3, dtype=np.float32)[[next(self.labels) for _ in pixels]],)

    totals = evaluation.tables(run(labelled_images, None, correct, constant))[0]
    headings = [column.name for column in totals.columns]
    assert headings == [
        "artifact", "images", "top-1 %", "ECE %", "change (pp)", "low", "high", "same %"
    ]  # fmt: skip
    assert [column.align for column in totals.columns] == ["left"] + ["right"] * 7
    first, second = (dict(zip(headings, row, strict=True)) for row in totals.rows)
    assert (first["top-1 %"], first["change (pp)"], first["same %"]) == ("100.00", "-", "-")
    assert (second["top-1 %"], second["change (pp)"], second["same %"]) == ("33.33", "-66.67", "33.3")
    assert float(second["low"]) < -66.67 < float(second["high"]) < 0


def test_a_single_artifact_has_no_columns_of_a_comparison(labelled_images: evaluation.TestImages) -> None:
    totals, classes = evaluation.tables(run(labelled_images))
    assert [column.name for column in totals.columns] == ["artifact", "images", "top-1 %", "ECE %"]
    balanced, macro_f1 = (np.mean([100 * float(row[column]) for row in classes.rows]) for column in (3, 4))
    title = re.fullmatch(r"model\.onnx: classes by F1; balanced (.*) %, macro-F1 (.*) %", classes.title)
    assert title is not None
    assert [float(text) for text in title.groups()] == pytest.approx([balanced, macro_f1], abs=0.06)
    assert sorted(row[0] for row in classes.rows) == list(CLASSES)
    scores = [float(row[4]) for row in classes.rows]
    assert scores == sorted(scores)


def test_of_many_classes_the_worst_and_the_best_are_shown(
    labelled_images: evaluation.TestImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "EXTREME_CLASSES", 1)
    _, worst, best = evaluation.tables(run(labelled_images))
    assert worst.title.startswith("model.onnx: the 1 worst of 3 classes by F1; balanced ")
    assert best.title == "model.onnx: the 1 best"
    assert float(worst.rows[0][4]) <= float(best.rows[0][4])


def test_images_that_the_run_of_an_artifact_learned_from_are_left_out(root: Path, tmp_path: Path) -> None:
    """The test images are also the run's val images: nothing remains, unless all images are wanted."""
    folder = tmp_path / "run"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: {name: imagefolder, root: /no/such/folder}\n")
    data = named_data.load(f"imagefolder:{root}")
    (folder / "splits.json").write_text(json.dumps(data.splits_json()))
    digests = {"train": digests_of(data.train), "val": digests_of(data.test)}
    np.savez(folder / "seen.npz", **digests)  # type: ignore[arg-type]
    file = replace(artifact(), path=folder / "artifacts" / "model.onnx")
    with pytest.raises(InputError, match="no image remains"):
        evaluation.find_images(f"imagefolder:{root}", None, "test", [file])
    everything = evaluation.find_images(f"imagefolder:{root}", None, None, [file], all_images=True)
    (result,) = run(everything, None, file)
    assert result.accuracy.images == len(everything.names) == 42
    assert any("which it learned from" in note for note in result.notes)


def test_all_images_is_for_data_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--all-images is for --data"):
        evaluation.find_images(None, tmp_path, None, all_images=True)


def test_a_split_that_would_be_ignored_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="--split is for --data: an evaluation set is always evaluated whole"):
        evaluation.find_images(None, tmp_path, "val")
    with pytest.raises(InputError, match="--all-images evaluates all splits; remove it or --split"):
        evaluation.find_images(f"imagefolder:{root}", None, "val", all_images=True)


def test_unreadable_images_are_one_line(root: Path) -> None:
    (result,) = run(evaluation.find_images(f"imagefolder:{root}", None, None))
    assert result.unreadable_notes() == []
    unreadable = replace(result, unreadable=("a.png", "b.png"))
    assert unreadable.unreadable_notes() == ["left out: 2 images (--json lists all): can't be read, for example a.png"]
