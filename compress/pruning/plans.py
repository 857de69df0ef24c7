"""Pruning plans: the channels that each group keeps, and the expected savings. Loads without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtimes.files import Json, read_object, write_json

Unit = Literal["ms", "MACs"]


@dataclass(frozen=True)
class Cut:
    """The units that one group keeps.

    layers: the layers whose channel counts depend on the group. units_before: number of units before this plan.
    kept: indices of the remaining units, ascending. importance_removed: share of the group's importance that is
    removed. cost_saved: how much more the planned network would cost if this group kept all units, in the plan's unit.
    """

    group: str
    layers: tuple[str, ...]
    units_before: int = field(metadata={"json": "before"})
    kept: tuple[int, ...]
    importance_removed: float = field(metadata={"json": "lost"})
    cost_saved: float = field(metadata={"json": "saved"})


@dataclass(frozen=True)
class PruningPlan:
    """The cuts of one pruning round.

    unit: of all costs. baseline_cost: of the network before the first round. requested_share, predicted_share,
    measured_share: cost of the planned network divided by baseline_cost; measured_share is None without a measurement.
    """

    cuts: tuple[Cut, ...]
    unit: Unit
    baseline_cost: float = field(metadata={"json": "cost_before"})
    requested_share: float = field(metadata={"json": "asked"})
    predicted_share: float = field(metadata={"json": "predicted"})
    measured_share: float | None = field(metadata={"json": "measured"})

    def to_json(self) -> Json:
        """Return the content of plan-N.json, which reports include."""
        return {
            "cuts": [
                {
                    "group": cut.group, "layers": list(cut.layers), "before": cut.units_before, "kept": list(cut.kept),
                    "lost": cut.importance_removed, "saved": cut.cost_saved,
                }
                for cut in self.cuts
            ],
            "unit": self.unit,
            "cost_before": self.baseline_cost,
            "asked": self.requested_share,
            "predicted": self.predicted_share,
            "measured": self.measured_share,
        }  # fmt: skip

    @classmethod
    def from_json(cls, fields: Json) -> PruningPlan:
        """Return the plan that `to_json` gave; raises ValueError for content of another form."""
        return read_object(cls, fields)

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_json(path, self.to_json())
