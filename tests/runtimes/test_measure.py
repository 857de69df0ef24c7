"""Tests of runtimes.measure with fake sessions and, for exact numbers, a fake clock."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from consoles import RecordingConsole

from runtimes import clock, energy, environment, evalset, measure, metrics, telemetry
from runtimes.artifact import Artifact
from runtimes.backends import fake
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.errors import ArtifactError, CompressError, InputError
from runtimes.evalset import EvalSet
from runtimes.measure import Measurement
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

TARGET = Target("board", runtime="fake")
SHORT = Timing(warmup=0, blocks=2, runs_per_block=1, sessions=1)
QUIET = SilentConsole()
FakeMaker = Callable[..., Artifact]
SetMaker = Callable[..., EvalSet]


class Recorder:
    """Loads sessions that answer with each image's mean colours and write down whatever happens to them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.images: dict[str, list[np.ndarray]] = {}
        self.on_run: Callable[[str], None] = lambda name: None

    def load(self, artifact: Artifact, target: Target) -> Any:
        name = artifact.path.stem
        self.events.append(("load", name))
        self.images[name] = []

        def run(images: np.ndarray) -> tuple[np.ndarray]:
            self.events.append(("run", name))
            self.images[name].append(images)
            self.on_run(name)
            return (images.mean((2, 3)),)

        return SimpleNamespace(run=run, close=lambda: self.events.append(("close", name)))

    def names(self, event: str) -> list[str]:
        return [name for happened, name in self.events if happened == event]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Return a recorder that stands in for every runtime."""
    made = Recorder()
    monkeypatch.setattr(measure, "load", made.load)
    return made


def set_durations(monkeypatch: pytest.MonkeyPatch, durations_ms: list[float]) -> None:
    """Let the measuring clock tell these durations, one for each timed run."""
    ticks = [tick for duration in durations_ms for tick in (0, round(duration * 1e6))]
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=iter(ticks).__next__))


# Latency


def test_each_session_is_loaded_anew_warmed_up_and_timed_for_its_share(
    fake_artifact: FakeMaker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "STEADY", 1e9)  # two windows of two runs are always steady
    artifacts = [fake_artifact("a.fake"), fake_artifact("b.fake")]
    timing = Timing(warmup=2, blocks=5, runs_per_block=3, sessions=2)
    found = measure.measure(artifacts, TARGET, None, timing, QUIET)
    assert recorder.names("load") == list("abab")
    assert recorder.names("close") == list("baba")
    of_session = recorder.events[: recorder.events.index(("close", "b"))]
    assert of_session.count(("run", "a")) == 4 + 3 * (1 + 3)
    assert [event for event, name in recorder.events if name == "a"].count("run") == 2 * 4 + 5 * (1 + 3)
    assert [np.shape(one.latency_ms) for one in found] == [(5, 3), (5, 3)]


def test_twice_the_latency_is_a_ratio_of_two(fake_artifact: FakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0

    def sleep(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(seconds * 1e9)

    monkeypatch.setattr(fake, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=lambda: now_ns))
    artifacts = [fake_artifact("slow.fake", latency_ms=2), fake_artifact("fast.fake", latency_ms=1)]
    slow, fast = measure.measure(
        artifacts, TARGET, None, Timing(warmup=1, blocks=4, runs_per_block=2, sessions=1), QUIET
    )
    assert (slow.artifact, fast.artifact) == ("slow.fake", "fast.fake")
    assert (slow.latency_ms_p50, fast.latency_ms_p50) == (2, 1)
    np.testing.assert_allclose(slow.latency_ms, 2)
    np.testing.assert_allclose(fast.latency_ms, 1)


def test_sessions_take_turns_and_each_block_starts_with_the_next(
    fake_artifact: FakeMaker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "STEADY", 1e9)  # two windows of two runs are always steady
    artifacts = [fake_artifact(f"{name}.fake") for name in "abc"]
    measure.measure(artifacts, TARGET, None, Timing(warmup=2, blocks=4, runs_per_block=3, sessions=1), QUIET)
    runs = "".join(recorder.names("run"))
    warmup, timed = runs[:12], runs[12:]
    assert warmup == "aaaabbbbcccc"
    turns = ["".join(timed[start : start + 4]) for start in range(0, len(timed), 4)]  # one untimed run, three timed
    assert [turn[0] for turn in turns] == list("abcbcacababc")
    assert all(len(set(turn)) == 1 for turn in turns)


def test_the_first_run_after_a_neighbour_is_not_timed(fake_artifact: FakeMaker, recorder: Recorder) -> None:
    last = [""]

    def cold(name: str) -> None:
        if last[0] != name:
            time.sleep(0.1)
        last[0] = name

    recorder.on_run = cold
    artifacts = [fake_artifact("a.fake"), fake_artifact("b.fake")]
    for found in measure.measure(
        artifacts, TARGET, None, Timing(warmup=1, blocks=3, runs_per_block=1, sessions=1), QUIET
    ):
        assert found.latency_ms_p50 < 50


@pytest.mark.parametrize(
    ("blocks", "runs", "has_p90", "has_p99"),
    [(2, 1, False, False), (19, 1, False, False), (20, 1, True, False), (2, 10, True, False), (199, 1, True, False),
     (200, 1, True, True), (2, 100, True, True)],
)  # fmt: skip
def test_a_percentile_with_too_few_runs_beyond_it_is_none(
    fake_artifact: FakeMaker, blocks: int, runs: int, has_p90: bool, has_p99: bool
) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, None, Timing(0, blocks, runs, sessions=1), QUIET)
    assert found.latency_ms_p50 > 0
    assert (found.latency_ms_p90 is not None, found.latency_ms_p99 is not None) == (has_p90, has_p99)
    assert np.shape(found.latency_ms) == (blocks, runs)


def test_percentiles_runs_and_throughput_are_those_of_the_clock(
    fake_artifact: FakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    durations = np.random.default_rng(5).uniform(1, 9, (50, 4)).round(6)
    set_durations(monkeypatch, durations.ravel().tolist())
    target = replace(TARGET, batch=8)
    (found,) = measure.measure([fake_artifact()], target, None, Timing(0, 50, 4, sessions=1), QUIET)
    percentiles = np.percentile(durations, [50, 90, 99])
    assert (found.latency_ms_p50, found.latency_ms_p90, found.latency_ms_p99) == pytest.approx(percentiles, abs=1e-4)
    np.testing.assert_allclose(found.latency_ms, durations, rtol=0, atol=1e-4)
    assert found.throughput_images_per_s == pytest.approx(8 * 1000 / percentiles[0], rel=1e-3)


def test_durations_go_to_the_session_that_took_them(fake_artifact: FakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = [1.0, 1.5, 2.0, 2.5], [10.0, 10.5, 11.0, 11.5]
    turns = [a[0:1], b[0:1], b[1:2], a[1:2], a[2:3], b[2:3], b[3:4], a[3:4]]
    set_durations(monkeypatch, [duration for turn in turns for duration in turn])
    artifacts = [fake_artifact("a.fake"), fake_artifact("b.fake")]
    first, second = measure.measure(artifacts, TARGET, None, Timing(0, 4, 1, sessions=1), QUIET)
    assert (first.latency_ms, second.latency_ms) == (tuple((ms,) for ms in a), tuple((ms,) for ms in b))


def test_the_clock_runs_without_garbage_collection_and_gives_it_back(
    fake_artifact: FakeMaker, recorder: Recorder
) -> None:
    enabled: list[bool] = []
    recorder.on_run = lambda name: enabled.append(gc.isenabled())
    assert gc.isenabled()
    measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    assert enabled == [False, False, False, False]
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_a_failed_run(fake_artifact: FakeMaker, recorder: Recorder) -> None:
    def fail_while_timed(name: str) -> None:
        if not gc.isenabled():
            raise CompressError("the board fell over")

    recorder.on_run = fail_while_timed
    with pytest.raises(CompressError, match="fell over"):
        measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    assert gc.isenabled()


@pytest.mark.parametrize("batch", [1, 3])
def test_timed_runs_get_the_targets_batch_of_different_images(
    fake_artifact: FakeMaker, make_evalset: SetMaker, recorder: Recorder, batch: int
) -> None:
    evalset = make_evalset(30)
    target = replace(TARGET, batch=batch)
    measure.measure([fake_artifact()], target, evalset, Timing(0, 2, 5, sessions=1), QUIET)
    timed = recorder.images["a"][-5:]
    assert {images.shape for images in timed} == {(batch, 3, 4, 4)}
    assert all(images.flags.c_contiguous and images.dtype == np.float32 for images in timed)
    assert len({images.tobytes() for images in timed}) == 5
    wanted = evalset.preprocessing.normalize(evalset.images[: 5 * batch])
    np.testing.assert_array_equal(np.concatenate(timed), wanted)


def test_without_an_evaluation_set_the_noise_is_the_same_every_time(
    fake_artifact: FakeMaker, recorder: Recorder
) -> None:
    measure.measure([fake_artifact("a.fake"), fake_artifact("b.fake")], TARGET, None, SHORT, QUIET)
    first = recorder.images["b"]
    assert first[-1].std() > 0.1
    measure.measure([fake_artifact("b.fake")], TARGET, None, SHORT, QUIET)
    np.testing.assert_array_equal(recorder.images["b"][-1], first[-1])


# Accuracy


def test_accuracy_is_that_of_the_chosen_logits(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    logits = np.random.default_rng(11).standard_normal((6, 3)).astype(np.float32)
    evalset = make_evalset(6)
    target = replace(TARGET, batch=6)  # the run that loads the weights uses each row once, too
    (found,) = measure.measure([fake_artifact(logits=logits)], target, evalset, SHORT, QUIET)
    assert found.accuracy == metrics.accuracy(logits, evalset.labels)
    assert found.predicted == tuple(logits.argmax(1).tolist())
    assert found.evalset_sha256 == evalset.sha256


def test_one_output_predicts_both_of_two_classes(fake_artifact: FakeMaker, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
    labels, classes = np.asarray([0, 1, 0, 1]), ("ok", "defective")
    preprocessing = fake_artifact().manifest.preprocessing
    images = evalset.write(tmp_path / "two", pixels, labels, tuple("abcd"), classes, preprocessing)
    artifact = fake_artifact("b.fake", logits=[[-1.0], [2.0], [0.5], [-0.1]], labels=classes)
    (found,) = measure.measure([artifact], TARGET, images, SHORT, QUIET)
    assert found.predicted == (0, 1, 1, 0)
    assert found.accuracy is not None
    assert found.accuracy.top1 == 0.5


def test_one_class_is_not_judged(fake_artifact: FakeMaker, tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    artifact = fake_artifact(logits=[[1.0], [2.0]], labels=("0",))
    images = evalset.write(tmp_path / "one", pixels, None, ("a", "b"), ("0",), artifact.manifest.preprocessing)
    with pytest.raises(
        InputError, match=r"a\.fake has one output.*list both as labels in its manifest or with --labels"
    ):
        measure.measure([artifact], TARGET, images, SHORT, QUIET)
    (found,) = measure.measure([artifact], TARGET, None, SHORT, QUIET)
    assert found.predicted == ()


def test_measure_and_evaluate_agree_on_a_fake(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    evalset, artifact = make_evalset(6), fake_artifact(logits=np.eye(3)[[0, 1, 2, 2, 1, 0]])
    (found,) = measure.measure([artifact], TARGET, evalset, SHORT, QUIET)
    assert found.predicted == tuple(measure.evaluate(artifact, TARGET, evalset).argmax(1).tolist())


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("count", "batch"), [(6, 1), (6, 4), (6, 6), (3, 4), (40, 7)])
def test_every_image_gets_its_own_answer(
    fake_artifact: FakeMaker, make_evalset: SetMaker, recorder: Recorder, fixed: bool, count: int, batch: int
) -> None:
    evalset = make_evalset(count)
    artifact = fake_artifact(input_shape=(batch if fixed else None, 3, 4, 4))
    target = replace(TARGET, batch=batch)
    wanted = evalset.preprocessing.normalize(evalset.images).mean((2, 3))
    np.testing.assert_allclose(measure.evaluate(artifact, target, evalset), wanted, rtol=1e-5, atol=1e-6)
    if fixed:
        assert {images.shape for images in recorder.images["a"]} == {(batch, 3, 4, 4)}
    (found,) = measure.measure([artifact], target, evalset, SHORT, QUIET)
    assert found.predicted == tuple(wanted.argmax(1).tolist())
    assert found.accuracy is not None
    assert found.accuracy.confusion == metrics.accuracy(wanted, evalset.labels).confusion
    assert found.accuracy.images == count


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1, 1)])
def test_an_output_of_one_image_may_lack_the_batch_axis(
    fake_artifact: FakeMaker, make_evalset: SetMaker, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    session = SimpleNamespace(run=lambda images: (images.mean((0, 2, 3)).reshape(shape),), close=lambda: None)
    monkeypatch.setattr(measure, "load", lambda artifact, target: session)
    evalset, artifact = make_evalset(4), fake_artifact(input_shape=(1, 3, 4, 4))
    wanted = evalset.preprocessing.normalize(evalset.images).mean((2, 3))
    np.testing.assert_allclose(measure.evaluate(artifact, TARGET, evalset), wanted, rtol=1e-5, atol=1e-6)


def test_answers_may_be_names(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    session = SimpleNamespace(run=lambda images: (np.array(["cat"] * len(images), object), images.mean((1, 2, 3))))
    pixels = make_evalset(2).pixels(np.arange(2))
    found = list(measure.answers(session, fake_artifact(input_shape=(1, 3, 4, 4)), TARGET, pixels))
    assert [(str(name), value.shape) for name, value in found] == [("cat", ()), ("cat", ())]


def test_without_labels_there_are_predictions_and_no_accuracy(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, make_evalset(4, labelled=False), SHORT, QUIET)
    assert (found.accuracy, found.predicted) == (None, (0, 0, 0, 0))


def test_without_an_evaluation_set_there_is_latency_alone(fake_artifact: FakeMaker) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    assert (found.accuracy, found.predicted, found.evalset_sha256) == (None, (), None)
    assert found.latency_ms_p50 > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_artifact_that_answers_no_finite_number_is_an_error(
    fake_artifact: FakeMaker, make_evalset: SetMaker, bad: float, labelled: bool
) -> None:
    artifact = fake_artifact("broken.fake", logits=[[1, 0, 0], [0, bad, 0]])
    with pytest.raises(CompressError, match=r"broken\.fake returns NaN or infinity on target 'board'"):
        measure.measure([artifact], TARGET, make_evalset(labelled=labelled), SHORT, QUIET)


def test_evaluate_refuses_nan_too(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    with pytest.raises(CompressError, match="NaN"):
        measure.evaluate(fake_artifact(logits=[[np.nan, 0, 0]]), TARGET, make_evalset())


@pytest.mark.parametrize("columns", [2, 4])
def test_another_number_of_logits_than_classes_is_an_error(
    fake_artifact: FakeMaker, make_evalset: SetMaker, columns: int
) -> None:
    with pytest.raises(CompressError):
        measure.measure([fake_artifact(logits=np.ones((1, columns)))], TARGET, make_evalset(), SHORT, QUIET)


def test_another_number_of_answers_than_images_is_an_error(
    fake_artifact: FakeMaker, make_evalset: SetMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_row = SimpleNamespace(run=lambda images: (np.ones((1, 3), np.float32),), close=lambda: None)
    monkeypatch.setattr(measure, "load", lambda artifact, target: one_row)
    with pytest.raises(ArtifactError, match=r"returns \(1, 3\) for [2-9] images, not one logit for each of 3 classes"):
        measure.evaluate(fake_artifact(), TARGET, make_evalset())


# What fits what


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preprocessing": Preprocessing(resize=5, crop=4)}, "another preprocessing than the evaluation set"),
        ({"labels": ("cat", "dog")}, "other classes than the evaluation set"),
        ({"labels": ("dog", "cat", "owl")}, "other classes than the evaluation set"),
        (
            {"input_shape": (4, 3, 4, 4)},
            "has the fixed batch 4, target 'board' has batch 1; set the batch to 4, or export with",
        ),
    ],
)
def test_what_does_not_fit_is_an_input_error_that_names_the_file(
    fake_artifact: FakeMaker, make_evalset: SetMaker, recorder: Recorder, fields: dict[str, Any], message: str
) -> None:
    evalset, odd = make_evalset(), fake_artifact("odd.fake", **fields)
    with pytest.raises(InputError, match=message) as caught:
        measure.measure([fake_artifact("even.fake"), odd], TARGET, evalset, SHORT, QUIET)
    assert str(caught.value).startswith("odd.fake ")
    with pytest.raises(InputError, match=message):
        measure.evaluate(odd, TARGET, evalset)
    assert recorder.events == []  # told before anything was loaded


def test_a_fixed_batch_is_checked_without_an_evaluation_set(fake_artifact: FakeMaker) -> None:
    with pytest.raises(InputError, match="has the fixed batch 4"):
        measure.measure([fake_artifact(input_shape=(4, 3, 4, 4))], TARGET, None, SHORT, QUIET)


def test_no_artifacts_are_an_input_error(make_evalset: SetMaker) -> None:
    with pytest.raises(InputError, match="no artifact to measure"):
        measure.measure([], TARGET, make_evalset(), SHORT, QUIET)


def test_an_evaluation_set_without_images_is_an_input_error(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    with pytest.raises(InputError):
        measure.measure([fake_artifact()], TARGET, make_evalset().head(0), SHORT, QUIET)


def test_artifacts_of_different_inputs_are_timed_on_their_own(fake_artifact: FakeMaker, recorder: Recorder) -> None:
    artifacts = [fake_artifact("a.fake"), fake_artifact("b.fake", preprocessing=Preprocessing(resize=8, crop=8))]
    measure.measure(artifacts, TARGET, None, SHORT, QUIET)
    assert recorder.images["b"][-1].shape == (1, 3, 8, 8)


# Sessions, memory, progress


def test_every_session_is_closed_once(fake_artifact: FakeMaker, recorder: Recorder) -> None:
    measure.measure([fake_artifact("a.fake"), fake_artifact("b.fake")], TARGET, None, SHORT, QUIET)
    assert sorted(recorder.names("close")) == ["a", "b"]
    assert {event for event, _ in recorder.events[-2:]} == {"close"}


@pytest.mark.parametrize("run_that_fails", [0, 1, 2, 5])
def test_sessions_are_closed_when_one_fails(
    fake_artifact: FakeMaker, recorder: Recorder, make_evalset: SetMaker, run_that_fails: int
) -> None:
    runs = [0]

    def fail(name: str) -> None:
        runs[0] += 1
        if name == "b" and runs[0] > run_that_fails:
            raise CompressError("the board fell over")

    recorder.on_run = fail
    with pytest.raises(CompressError, match="fell over"):
        measure.measure([fake_artifact("a.fake"), fake_artifact("b.fake")], TARGET, make_evalset(), SHORT, QUIET)
    assert sorted(recorder.names("close")) == ["a", "b"]


def test_the_first_session_is_closed_when_the_second_does_not_load(
    fake_artifact: FakeMaker, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(artifact: Artifact, target: Target) -> Any:
        if artifact.path.stem == "b":
            raise CompressError("refused")
        return recorder.load(artifact, target)

    monkeypatch.setattr(measure, "load", load)
    with pytest.raises(CompressError, match="refused"):
        measure.measure([fake_artifact("a.fake"), fake_artifact("b.fake")], TARGET, None, SHORT, QUIET)
    assert recorder.names("close") == ["a"]


def test_evaluate_closes_its_session_when_it_fails(
    fake_artifact: FakeMaker, make_evalset: SetMaker, recorder: Recorder
) -> None:
    def fail(name: str) -> None:
        raise CompressError("the board fell over")

    recorder.on_run = fail
    with pytest.raises(CompressError, match="fell over"):
        measure.evaluate(fake_artifact(), TARGET, make_evalset())
    assert recorder.names("close") == ["a"]


def test_resident_bytes_is_the_growth_and_never_negative(
    fake_artifact: FakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "resident_bytes", iter([100, 170, 300, 250]).__next__)
    artifacts = [fake_artifact("a.fake"), fake_artifact("b.fake")]
    assert [found.resident_bytes for found in measure.measure(artifacts, TARGET, None, SHORT, QUIET)] == [
        70,
        0,
    ]


def test_progress_counts_images_and_blocks_to_the_end(fake_artifact: FakeMaker, make_evalset: SetMaker) -> None:
    console = RecordingConsole()
    timing = Timing(0, 3, 1, sessions=1)
    measure.measure([fake_artifact("net.fake")], TARGET, make_evalset(40), timing, console)
    assert console.events == [
        ("evaluate net", 32, 40),
        ("evaluate net", 40, 40),
        *[("time", block, 3) for block in (1, 2, 3)],
    ]


# Measurement


def test_a_measurement_names_its_artifact_and_circumstances(fake_artifact: FakeMaker) -> None:
    artifact = fake_artifact("m.fake", precision="int8", session_options={"session.x": "1"})
    (found,) = measure.measure([artifact], TARGET, None, SHORT, QUIET)
    manifest = artifact.manifest
    assert (found.artifact, found.sha256, found.size_bytes) == ("m.fake", manifest.sha256, artifact.path.stat().st_size)
    assert (found.precision, found.session_options) == ("int8", {"session.x": "1"})
    assert (found.target, found.timing) == (TARGET, SHORT)
    assert found.environment == environment.describe().for_runtimes()


@pytest.mark.parametrize("seen", ["unknown", {"board": 40.0}])
def test_the_state_of_the_machine_before_and_after_goes_with_it_and_energy_where_it_is_seen(
    fake_artifact: FakeMaker, monkeypatch: pytest.MonkeyPatch, seen: Any
) -> None:
    states = [
        {"gpu_mhz": mhz, "energy_j": "unknown", "power_w": power} for mhz, power in ((1020.0, seen), (612.0, seen))
    ]
    readings = iter([SimpleNamespace(to_json=lambda state=state: state) for state in states])
    monkeypatch.setattr(telemetry, "read", readings.__next__)
    monkeypatch.setattr(energy, "per_call_mj", lambda session, inputs, target: {"board": 3.5})
    for found in measure.measure([fake_artifact("a.fake"), fake_artifact("b.fake")], TARGET, None, SHORT, QUIET):
        assert found.telemetry == {"before": states[0], "after": states[1]}
        assert found.energy_mj == ("unknown" if seen == "unknown" else {"board": 3.5})


def test_a_measurement_from_before_there_was_telemetry_is_read(fake_artifact: FakeMaker) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    older = found.to_json()
    del older["telemetry"]
    for name in ("compute_capability", "cuda_graph", "dla", "datasheet"):
        del older["target"][name]
    assert Measurement.from_json(older) == replace(found, telemetry={})


@pytest.mark.parametrize("labelled", [True, False, None])
@pytest.mark.parametrize("blocks", [2, 20])
def test_a_measurement_comes_back_from_json_the_same(
    fake_artifact: FakeMaker, make_evalset: SetMaker, labelled: bool | None, blocks: int
) -> None:
    evalset = None if labelled is None else make_evalset(5, labelled=labelled)
    (found,) = measure.measure([fake_artifact()], TARGET, evalset, Timing(0, blocks, 1, sessions=1), QUIET)
    assert Measurement.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"colour": 1}, ValueError),
        ({"target": {"name": "a", "runtime": "npu"}}, ValueError),
        ({"target": {"name": "a", "colour": 1}}, ValueError),
        ({"timing": {"blocks": 1}}, ValueError),
        ({"accuracy": {}}, ValueError),
    ],
)
def test_json_that_does_not_fit_is_refused(
    fake_artifact: FakeMaker, change: dict[str, Any], error: type[Exception]
) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    with pytest.raises(error):
        Measurement.from_json({**found.to_json(), **change})


def test_a_measurement_of_another_schema_version_is_refused(fake_artifact: FakeMaker) -> None:
    (found,) = measure.measure([fake_artifact()], TARGET, None, SHORT, QUIET)
    with pytest.raises(ValueError, match="version 99"):
        Measurement.from_json({**found.to_json(), "schema_version": 99})
