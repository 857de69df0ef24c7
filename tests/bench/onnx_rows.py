"""Rows of `bench_onnx.py`: outcomes, figures, table and last line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx_processes import Ended

MAX_DROP_PP, MIN_AGREEMENT = 1.0, 0.95
MIN_DB_ALONE = 20.0  # of boxes without an object, which have no mAP
SLOWER, SAME_AGREEMENT = 0.95, 0.002  # against ONNX Runtime's file
LEARNED = 0.7  # top-1 that shows that logits are not nearly tied
OUTCOMES = ("right", "refused", "wrong", "crashed")  # from good to bad
NOT_COUNTED = ("not installed", "not exported")
REFUSALS = (2, 3)  # exit codes


@dataclass
class Row:
    """Result of one network. forms: outcome of each, with its message."""

    network: str
    kind: str
    outcome: str
    message: str = ""
    forms: dict[str, str] = field(default_factory=dict)
    top1: float | None = None
    top1_change_pp: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    speedup: float | None = None
    ort_agreement: float | None = None
    ort_sqnr_db: float | None = None
    ort_speedup: float | None = None
    ort_message: str = ""
    quantize_s: float | None = None
    quantize_cpu_s: float | None = None
    peak_mib: int | None = None
    cpu_s: float = 0.0
    duration_s: float = 0.0
    commit: str = ""

    @property
    def is_counted(self) -> bool:
        """Return whether it is one of the networks of the last line."""
        return self.outcome not in NOT_COUNTED

    @property
    def is_better_than_ort(self) -> bool:
        """Return whether its dB is at least that of ONNX Runtime's file; also if there is none."""
        return self.sqnr_db is not None and (self.ort_sqnr_db is None or self.sqnr_db >= self.ort_sqnr_db)

    @property
    def is_slower_than_ort(self) -> bool:
        """Return whether ONNX Runtime's file is faster by more than 5 % and agrees as often."""
        if self.speedup is None or self.ort_speedup is None or self.speedup >= SLOWER * self.ort_speedup:
            return False
        if self.agreement is None or self.ort_agreement is None:
            return not self.is_better_than_ort
        return self.ort_agreement >= self.agreement - SAME_AGREEMENT


def outcome_of(ended: Ended, out: Path) -> tuple[str, str]:
    """Return the outcome of a quantization, right if it is still to be judged, and its message."""
    is_traceback = "Traceback (most recent call last)" in ended.output
    if ended.code == 0 and out.exists() and not is_traceback:
        return "right", ""
    if ended.code in REFUSALS and not out.exists() and not is_traceback:
        return "refused", ended.last_line[:400]
    return "crashed", ended.message


def verdict(result: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """Return the outcome of a judged file, and its figures in words."""
    before, after = result["float32"], result["int8"]
    figures = f"{after['sqnr_db']:.1f} dB"
    if after["agreement"] is None:
        return "right" if after["sqnr_db"] >= MIN_DB_ALONE else "wrong", figures
    figures = f"agreement {after['agreement']:.3f}, {figures}"
    if after["top1"] is None:
        return "right" if after["agreement"] >= MIN_AGREEMENT else "wrong", figures
    drop_pp = 100 * (before["top1"] - after["top1"])
    return "right" if drop_pp <= MAX_DROP_PP else "wrong", f"{figures}, top-1 {-drop_pp:+.2f} points"


def fill(row: Row, result: Mapping[str, Mapping[str, float]]) -> None:
    """Write the figures of a judged file and of ONNX Runtime's into a row."""
    before, after, peer = result["float32"], result["int8"], result.get("ort")
    row.agreement, row.sqnr_db = after["agreement"], round(after["sqnr_db"], 2)
    row.speedup = round(before["latency_ms_p50"] / after["latency_ms_p50"], 3)
    if after["top1"] is not None:
        row.top1, row.top1_change_pp = before["top1"], round(100 * (after["top1"] - before["top1"]), 2)
    if peer is None:
        row.ort_message = str(result.get("ort_failed", ""))
    else:
        row.ort_agreement, row.ort_sqnr_db = peer["agreement"], round(peer["sqnr_db"], 2)
        row.ort_speedup = round(before["latency_ms_p50"] / peer["latency_ms_p50"], 3)


HEADER = (f"{'network':<33}{'outcome':<14}{'agree':>6}{'dB':>6}{'speed':>6}   {'ORT: agree':>10}{'dB':>6}{'speed':>6}"
          f"{'top-1':>8}{'change':>7}{'s':>6}{'MiB':>6}  remarks")  # fmt: skip


def line(row: Row) -> str:
    cells = "".join((
        _cell(row.agreement, 6, 3), _cell(row.sqnr_db, 6, 1), _cell(row.speedup, 6, 2), "   ",
        _cell(row.ort_agreement, 10, 3), _cell(row.ort_sqnr_db, 6, 1), _cell(row.ort_speedup, 6, 2),
        _cell(None if row.top1 is None else 100 * row.top1, 8, 1), _cell(row.top1_change_pp, 7, 2, "+"),
        _cell(row.quantize_cpu_s, 6, 0), _cell(row.peak_mib, 6, 0),
    ))  # fmt: skip
    return f"{row.network:<33}{row.outcome:<14}{cells}  {'; '.join(_remarks(row))}".rstrip()


def _cell(value: float | None, width: int, digits: int, sign: str = "") -> str:
    return " " * width if value is None else f"{value:{sign}{width}.{digits}f}"


def _remarks(row: Row) -> list[str]:
    remarks = [row.message] if row.message else []
    if row.sqnr_db is not None and not row.is_better_than_ort:
        remarks.append("fewer dB than ONNX Runtime's")
    if row.is_slower_than_ort:
        remarks.append("slower than ONNX Runtime's")
    if row.ort_message:
        remarks.append(f"ONNX Runtime's quantizer failed: {row.ort_message[:80]}")
    if row.top1 is not None and row.top1 < LEARNED:
        remarks.append("hardly learned its classes")
    missing = [form for form, text in row.forms.items() if text.startswith("not exported")]
    if missing and row.is_counted:
        remarks.append(f"PyTorch cannot export {', '.join(missing)}")
    return remarks


def summary(rows: list[Row], duration_s: float) -> str:
    """Return the notes and the last line."""
    counted = [row for row in rows if row.is_counted]
    counts = {outcome: sum(row.outcome == outcome for row in counted) for outcome in OUTCOMES}
    figures = {
        "networks": len(counted), **counts, "better_db_than_ort": sum(row.is_better_than_ort for row in counted),
        "slower_than_ort": sum(row.is_slower_than_ort for row in counted),
    }  # fmt: skip
    forms = [text.split(":")[0] for row in counted for text in row.forms.values()]
    judged = sum(not text.startswith(("same as", "not exported")) for text in forms)
    minutes = sum(row.cpu_s for row in rows) / 60
    return (f"\n{len(forms)} forms, {judged} of them judged; this run took {duration_s / 60:.0f} minutes, "
            f"all rows {minutes:.0f} minutes of CPU time\n{json.dumps(figures)}")  # fmt: skip
