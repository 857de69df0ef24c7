"""How many units each group keeps: the least loss of importance under a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.networks.layers import LayerShape
from compress.pruning.shapes import Shapes

ROUNDS = 30  # of halving the price of a unit of cost
SWEEPS = 20  # through all groups at one price; it settles after a few
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What layers cost at a width, and what the rest costs by the sum of all outputs, in one unit (ms or MACs)."""

    layer: Callable[[str, LayerShape], float]
    rest: Callable[[float], float]

    def total(self, shapes: Shapes, widths: Mapping[str, int]) -> float:
        """Return what a network costs."""
        found = shapes.all(widths)
        return sum(self.layer(name, width) for name, width in found.items()) + self.rest(
            sum(width.outputs for width in found.values())
        )


def choose_widths(
    shapes: Shapes,
    worth: Mapping[str, Float64],
    choices: Mapping[str, list[int]],
    costs: Costs,
    budget: float,
) -> dict[str, int]:
    """Return the units that each group keeps, from its choices (ascending, the last is all).

    Minimizes what is lost plus a price times the cost, group after group
    until nothing changes; the price is halved in until the budget holds (Lagrange relaxation of a knapsack whose items
    cost more or less with what their neighbours keep). What is left of the budget is filled, best first. Where no
    choice fits these are the cheapest widths.
    """
    losses = {name: _losses(worth[name], counts) for name, counts in choices.items()}
    search = _Search(shapes, losses, choices, costs)
    best = search.settle(math.inf, {})
    if costs.total(shapes, best) > budget:
        return best
    low, high = search.bracket(budget)
    for _ in range(ROUNDS):
        price = math.sqrt(low * high)
        found = search.settle(price, best)
        if costs.total(shapes, found) <= budget:
            best, high = found, price
        else:
            low = price
    return search.fill(best, budget)


def _losses(worth: Float64, counts: list[int]) -> dict[int, float]:
    """Return what a group loses with each choice: -log of the share of its importance that its best units hold.

    Groups stand behind each other, so that shares multiply; a sum of what is cut would empty the narrow ones.
    """
    total = np.cumsum(np.sort(worth)[::-1])
    return {count: -math.log(max(float(total[count - 1] / max(total[-1], 1e-30)), 1e-12)) for count in counts}


@dataclass(frozen=True)
class _Search:
    shapes: Shapes
    losses: Mapping[str, Mapping[int, float]]
    choices: Mapping[str, list[int]]
    costs: Costs

    def bracket(self, budget: float) -> tuple[float, float]:
        """Return a price at which the budget does not hold and one at which it does."""
        price = 1e-12 * max(sum(max(one.values()) for one in self.losses.values()), 1e-30) / budget
        low = price
        while self.costs.total(self.shapes, self.settle(price, {})) > budget and price < 1e30:
            low, price = price, price * 10
        return low, price

    def settle(self, price: float, start: Mapping[str, int]) -> dict[str, int]:
        """Return the widths from which no single group's change lowers loss plus price times cost; inf: the cost."""
        widths = {name: start.get(name, counts[-1]) for name, counts in self.choices.items()}
        for _ in range(SWEEPS):
            before = dict(widths)
            for name, counts in self.choices.items():
                cost = [self._local(name, widths, count) for count in counts]
                local = [self.losses[name][count] + price * one for count, one in zip(counts, cost, strict=True)]
                widths[name] = counts[int(np.argmin(cost if price == math.inf else local))]
            if widths == before:
                break
        return widths

    def fill(self, widths: dict[str, int], budget: float) -> dict[str, int]:
        """Give back what the budget still allows: each time the change with the most importance for its cost."""
        total = self.costs.total(self.shapes, widths)
        while True:
            best: tuple[float, str, int, float] | None = None
            for name, counts in self.choices.items():
                now = self._local(name, widths, widths[name])
                for count in counts[counts.index(widths[name]) + 1 :]:  # not the next one alone: it may cost more
                    won = self.losses[name][widths[name]] - self.losses[name][count]
                    more = self._local(name, widths, count) - now
                    if total + more <= budget and (best is None or won / max(more, 1e-30) > best[0]):
                        best = won / max(more, 1e-30), name, count, more
            if best is None:
                return widths
            widths[best[1]] = best[2]
            total += best[3]

    def _local(self, name: str, widths: dict[str, int], count: int) -> float:
        """Return what the layers of a group cost, and the rest for its outputs, if it keeps so many units."""
        changed = {**widths, name: count}
        cost, outputs = 0.0, 0.0
        for layer in self.shapes.readers[name]:
            width = self.shapes.width(layer, changed)
            cost += self.costs.layer(layer, width)
            outputs += width.outputs
        return cost + self.costs.rest(outputs) - self.costs.rest(0)
