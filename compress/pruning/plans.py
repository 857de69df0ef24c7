"""Pruning plans: the channels that each group keeps, and the expected savings. Loads without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes.files import Json, write_json

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
    units_before: int
    kept: tuple[int, ...]
    importance_removed: float
    cost_saved: float


@dataclass(frozen=True)
class PruningPlan:
    """The cuts of one pruning round.

    unit: of all costs. baseline_cost: of the network before the first round. requested_share, predicted_share,
    measured_share: cost of the planned network divided by baseline_cost; measured_share is None without a measurement.
    """

    cuts: tuple[Cut, ...]
    unit: Unit
    baseline_cost: float
    requested_share: float
    predicted_share: float
    measured_share: float | None

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
        """Return the plan that `to_json` gave; raises KeyError or TypeError for content of another form."""
        cuts = tuple(
            Cut(cut["group"], tuple(cut["layers"]), cut["before"], tuple(cut["kept"]), cut["lost"], cut["saved"])
            for cut in fields["cuts"]
        )
        return cls(
            cuts, fields["unit"], fields["cost_before"], fields["asked"], fields["predicted"], fields["measured"]
        )

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_json(path, self.to_json())
