"""What a plan of pruning says, as a table of text."""

from __future__ import annotations

from typing import Any

Table = list[list[str]]


def of_plan(plan: dict[str, Any]) -> Table:
    """Return a header, then a line per group of channels that is cut.

    importance: the share of the group's that goes; saved: what the whole network would cost more with the group whole.
    """
    lines = [["cut", "channels", "importance", "saved"]]
    for one in plan["cuts"]:
        if len(one["kept"]) < one["before"]:
            name = one["group"]
            lines.append([
                name if len(name) <= 35 else f"…{name[-34:]}",
                f"{one['before']} -> {len(one['kept'])}",
                f"-{100 * one['lost']:.1f} %",
                f"{one['saved']:.3f} ms" if plan["unit"] == "ms" else f"{one['saved'] / 1e6:.2f} MMACs",
            ])  # fmt: skip
    return lines


def outcome(plan: dict[str, Any]) -> str:
    """Return in one line what was asked for, what the table of costs predicts, and what the clock says."""
    shares = f"{plan['asked']:.3f} asked, {plan['predicted']:.3f} predicted"
    if plan["measured"] is None:
        return f"MACs: {shares} of the network before; not measured"
    return f"ms: {shares}, {plan['measured']:.3f} measured, of the network before"
