"""Width search: the number of units that each group keeps, with the least loss of importance under a budget."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.networks.layers import LayerShape
from compress.pruning.config import PruneConfig
from compress.pruning.groups import Group
from compress.pruning.shapes import Shapes
from runtimes.errors import InputError

BISECTIONS = 30  # of the Lagrange multiplier
ROUNDING = 1e-6  # of a number of units: 960 * (1 - 0.8) is a little less than 192
SWEEPS = 20  # over all groups at one multiplier; a few suffice to converge
Float64 = npt.NDArray[np.float64]
AllowedWidths = Mapping[str, list[int]]  # by group: ascending, the last is all units


@dataclass(frozen=True)
class Costs:
    """Cost functions in one unit (ms or MACs).

    layer: (module name, shape) -> cost. rest: sum of all layers' outputs -> cost of everything but the layers.
    """

    layer: Callable[[str, LayerShape], float]
    rest: Callable[[float], float]

    def total(self, shapes: Shapes, widths: Mapping[str, int]) -> float:
        """Return the cost of the network at the given widths."""
        layers = shapes.layers(widths)
        return sum(self.layer(name, shape) for name, shape in layers.items()) + self.rest(
            sum(shape.outputs for shape in layers.values())
        )


def allowed_widths(
    shapes: Shapes, config: PruneConfig, units_before: Mapping[str, int] | None = None
) -> dict[str, list[int]]:
    """Return the widths that each group may have: multiples of the step down to its limit, and all units.

    units_before: number of units of each group before the first round, to which limits refer; by default the present
    ones. Raises InputError for a pattern of `keep` or `limits` that matches no layer.
    """
    for pattern in (*config.keep, *config.limits):
        if not any(fnmatch.fnmatchcase(layer, pattern) for layer in shapes.full):
            examples = ", ".join([*shapes.full][:5])
            raise InputError(f"prune: no layer matches '{pattern}' of keep or limits; layers are called {examples}, …")
    before = units_before or shapes.units
    return {
        name: _allowed(group, shapes.layers_of[name], config, before[name]) for name, group in shapes.groups.items()
    }


def _allowed(group: Group, layers: list[str], config: PruneConfig, units_before: int) -> list[int]:
    def matches(pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(layer, pattern) for layer in layers)

    if any(matches(pattern) for pattern in config.keep):
        return [group.units]
    limits = [share for pattern, share in config.limits.items() if matches(pattern)]
    share_left = 1 - min(limits, default=config.most_pruned)
    least = max(1, math.ceil(units_before * share_left - ROUNDING))
    first = -(-least // config.step) * config.step
    return [*range(first, group.units, config.step), group.units]


def choose_widths(
    shapes: Shapes, scores: Mapping[str, Float64], allowed: AllowedWidths, costs: Costs, budget: float
) -> dict[str, int]:
    """Return the number of units that each group keeps; the cheapest allowed widths where none meet the budget.

    Lagrange relaxation of a knapsack problem: coordinate descent minimises loss + multiplier * cost, because the cost
    of a group depends on the widths of its neighbours; the multiplier is bisected until the cost meets the budget. The
    remaining budget is then filled greedily.
    """
    losses = {name: _losses(scores[name], counts) for name, counts in allowed.items()}
    search = _Search(shapes, losses, allowed, costs)
    best = search.descend(math.inf, {})
    if costs.total(shapes, best) > budget:
        return best
    low, high = search.bracket(budget)
    for _ in range(BISECTIONS):
        multiplier = math.sqrt(low * high)
        widths = search.descend(multiplier, best)
        if costs.total(shapes, widths) <= budget:
            best, high = widths, multiplier
        else:
            low = multiplier
    return search.fill(best, budget)


def _losses(scores: Float64, counts: list[int]) -> dict[int, float]:
    """Return the loss of a group at each width: -log of the share of its importance that its best units hold.

    Groups follow one another in the network, so shares multiply and losses add. A sum of removed importance would
    empty the narrow groups.
    """
    total = np.cumsum(np.sort(scores)[::-1])
    return {count: -math.log(max(float(total[count - 1] / max(total[-1], 1e-30)), 1e-12)) for count in counts}


@dataclass(frozen=True)
class _Search:
    shapes: Shapes
    losses: Mapping[str, Mapping[int, float]]
    allowed: AllowedWidths
    costs: Costs

    def bracket(self, budget: float) -> tuple[float, float]:
        """Return a multiplier at which the budget is exceeded and one at which it is met."""
        multiplier = 1e-12 * max(sum(max(losses.values()) for losses in self.losses.values()), 1e-30) / budget
        low = multiplier
        while self.costs.total(self.shapes, self.descend(multiplier, {})) > budget and multiplier < 1e30:
            low, multiplier = multiplier, multiplier * 10
        return low, multiplier

    def descend(self, multiplier: float, start: Mapping[str, int]) -> dict[str, int]:
        """Return widths where no change of a single group lowers loss + multiplier * cost.

        start: initial widths; all units for missing groups. An infinite multiplier minimises the cost alone.
        """
        widths = {name: start.get(name, counts[-1]) for name, counts in self.allowed.items()}
        for _ in range(SWEEPS):
            before = dict(widths)
            for name, counts in self.allowed.items():
                costs = [self._group_cost(name, widths, count) for count in counts]
                objective = [
                    self.losses[name][count] + multiplier * cost for count, cost in zip(counts, costs, strict=True)
                ]
                widths[name] = counts[int(np.argmin(costs if multiplier == math.inf else objective))]
            if widths == before:
                break
        return widths

    def fill(self, widths: dict[str, int], budget: float) -> dict[str, int]:
        """Widen groups while the budget allows it, each time with the best ratio of regained importance to cost."""
        total = self.costs.total(self.shapes, widths)
        while True:
            best: tuple[float, str, int, float] | None = None
            for name, counts in self.allowed.items():
                current_cost = self._group_cost(name, widths, widths[name])
                for count in counts[counts.index(widths[name]) + 1 :]:  # all wider ones, since costs aren't monotonic
                    gain = self.losses[name][widths[name]] - self.losses[name][count]
                    increase = self._group_cost(name, widths, count) - current_cost
                    if total + increase <= budget and (best is None or gain / max(increase, 1e-30) > best[0]):
                        best = gain / max(increase, 1e-30), name, count, increase
            if best is None:
                return widths
            _, name, count, increase = best
            widths[name] = count
            total += increase

    def _group_cost(self, name: str, widths: dict[str, int], count: int) -> float:
        """Return the cost of a group's layers, and of the rest for their outputs, if the group keeps `count` units."""
        changed = {**widths, name: count}
        cost, outputs = 0.0, 0.0
        for layer in self.shapes.layers_of[name]:
            shape = self.shapes.layer(layer, changed)
            cost += self.costs.layer(layer, shape)
            outputs += shape.outputs
        return cost + self.costs.rest(outputs) - self.costs.rest(0)
