"""Pruning plans as tables and lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from compress.process.table import Table
from compress.pruning.plans import PruningPlan, Unit

NAME_WIDTH = 35  # longer names lose their beginning
NAME_COLUMN, CELL_COLUMN = NAME_WIDTH + 1, 14  # characters; together at most 80 per line


def plan_table(plan: PruningPlan) -> Table:
    """Return a row for each group that loses channels.

    importance: change of the group's importance in percent; rounding errors above 0 count as 0. saved: how much more
    the whole network would cost if this group kept all channels.
    """
    rows = [
        (
            cut.group if len(cut.group) <= NAME_WIDTH else f"…{cut.group[1 - NAME_WIDTH :]}",
            f"{cut.units_before} -> {len(cut.kept)}",
            f"-{100 * max(0.0, cut.importance_removed):.1f} %",
            _cost(cut.cost_saved, plan.unit),
        )
        for cut in plan.cuts
        if len(cut.kept) < cut.units_before
    ]
    return Table.of("", "<pruned group|channels|importance|saved", rows)


def _cost(cost: float, unit: Unit) -> str:
    if unit == "ms":
        return f"{cost:.3f} ms"
    return f"{cost / 1e6:.2f} MMACs" if cost >= 1e6 else f"{cost / 1e3:.1f} kMACs"


def plan_summary(plan: PruningPlan) -> str:
    """Return one line with the requested, predicted and measured share of the baseline's cost."""
    quantity = "latency" if plan.unit == "ms" else "multiplications"
    measured = "not measured" if plan.measured_share is None else f"{plan.measured_share:.3f} measured"
    return (
        f"{quantity} / baseline: {plan.requested_share:.3f} requested, {plan.predicted_share:.3f} predicted, {measured}"
    )


def plan_lines(plan: PruningPlan) -> Iterator[str]:
    """Yield the table and the summary as text of at most 80 columns."""
    table = plan_table(plan)
    for name, *cells in (tuple(column.name for column in table.columns), *table.rows):
        yield f"{name:<{NAME_COLUMN}}" + "".join(f"{cell:>{CELL_COLUMN}}" for cell in cells)
    yield plan_summary(plan)
