"""The targets that come with the toolkit, and those of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.recipe import shipped, targets
from runtimes import target
from runtimes.errors import InputError

SHIPPED = list(shipped.targets().values())


@pytest.fixture
def with_trt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runtime trt be known, whether or not its file is here."""
    names = sorted({*target.runtime_names(), "trt"})
    monkeypatch.setattr(target, "runtime_names", lambda: names)


@pytest.mark.usefixtures("with_trt")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_target_has_a_data_sheet_with_its_source(path: Path) -> None:
    loaded = targets.load(path.stem)
    assert loaded.name == path.stem
    sheet = loaded.datasheet
    assert sheet is not None
    assert (sheet.cores is not None) == (loaded.provider == "cpu")
    comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    assert "Peaks: " in comment or "Arithmetic: " in comment
    faster = [sheet.float32_tflops, sheet.float16_tflops, sheet.int8_tops]
    assert [peak for peak in faster if peak] == sorted(peak for peak in faster if peak)


@pytest.mark.usefixtures("with_trt")
def test_a_gpu_of_a_class_names_its_compute_capability() -> None:
    for path in SHIPPED:
        if path.stem.startswith("rtx-sm"):
            assert targets.load(path.stem).compute_capability.replace(".", "") == path.stem.removeprefix("rtx-sm")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("just words", "must be a mapping"),
        ("threads: 0", "must have 1 to 1024 threads"),
        ("compute_capability: 8.6", "compute_capability: must be a valid string, not 8.6"),
        ("datasheet: {device: a}", "datasheet.float32_tflops: is required"),
        ("datasheet: {devise: a}", "datasheet.devise: unknown key; did you mean 'device'?"),
    ],
)
def test_a_wrong_file_is_reported_with_its_path(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        targets.load(str(path))
    assert any(line.startswith(f"{path}: {message}") for line in str(caught.value).splitlines())


def test_a_file_may_name_its_target(tmp_path: Path) -> None:
    path = tmp_path / "board.yml"
    path.write_text("name: other")
    assert targets.load(str(path)).name == "other"
