"""Draw charts as SVG text; colours follow the light or dark mode of the reader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 48
LABEL_HEIGHT, DESCENT, LETTER_WIDTH = 17, 4, 7.2  # of text, in pixels
ROW_HEIGHT, NAME_WIDTH, NOTE_WIDTH = 30, 190, 210  # of a waterfall chart, in pixels

# The style sheet of all charts: a page includes it once, a file of one chart contains it.
STYLE = """
:root { --ink: #1c2329; --muted: #5b6770; --grid: #d5dbe0; --paper: #ffffff;
  --float32: #4a6fa5; --float16: #7a5ba6; --int8: #b8460f; --good: #1a7f4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7ebee; --muted: #a3adb5; --grid: #38424a; --paper: #14191d;
    --float32: #8ab4f8; --float16: #c3a6f0; --int8: #ff9e64; --good: #62d394; --bad: #ff8a80; } }
.chart { font: 13px system-ui, sans-serif; color: var(--ink); }
.chart text { fill: currentColor; } .chart .muted { fill: var(--muted); }
.chart .name { stroke: var(--paper); stroke-width: 4; paint-order: stroke; }
.chart .grid { stroke: var(--grid); } .chart .axis { stroke: var(--muted); }
.chart .float32 { color: var(--float32); } .chart .float16 { color: var(--float16); }
.chart .int8 { color: var(--int8); } .chart .good { color: var(--good); } .chart .bad { color: var(--bad); }
.chart .neutral { color: var(--muted); }
.chart .mark { fill: currentColor; } .chart .line { fill: none; stroke: currentColor; stroke-width: 2; }
.chart .bar { stroke: currentColor; stroke-width: 1.5; }
.chart .front { fill: none; stroke: var(--muted); stroke-dasharray: 5 4; }
"""


@dataclass(frozen=True)
class Point:
    """A point of the chart of accuracy against latency.

    kind: precision, for the colour. x_to: end of a horizontal line, y_from, y_to: ends of a vertical line, or None.
    """

    name: str
    kind: str
    x: float
    y: float
    x_to: float | None = None
    y_from: float | None = None
    y_to: float | None = None


@dataclass(frozen=True)
class Bar:
    """A row of a waterfall chart: a bar from the value before to `value`, with a note beside it."""

    name: str
    value: float
    before: float | None
    note: str


@dataclass(frozen=True)
class Curve:
    """A line over epochs 1, 2, …; kind: for the colour."""

    name: str
    kind: str
    values: Sequence[float]


def standalone(svg: str) -> str:
    """Return a chart as the content of an SVG file."""
    head, rest = svg.split(">", 1)
    paper = f'<rect width="{WIDTH}" height="100%" style="fill: var(--paper)"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{paper}{rest}\n'


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front: the points for which no other has lower x and higher y, or one better and one equal."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def accuracy_latency(title: str, points: Sequence[Point], y_title: str = "top-1 %") -> str:
    """Return a chart of y in percent against latency in milliseconds, with intervals and the Pareto front."""
    x_high = 1.15 * max(point.x_to or point.x for point in points)
    ys = [value for point in points for value in (point.y, point.y_from, point.y_to) if value is not None]
    plot = _Plot(0.0, x_high, min(ys), max(ys), HEIGHT)
    parts = [*plot.axes("latency in ms: p50, line to p90", y_title)]
    front = pareto(points)
    if len(front) > 1:
        steps = " ".join(f"{plot.x(point.x):.1f},{plot.y(point.y):.1f}" for point in front)
        parts.append(f'<polyline class="front" points="{steps}"/>')
    for point in points:
        x, y = plot.x(point.x), plot.y(point.y)
        parts.append(f'<g class="{escape(point.kind)}">')
        if point.y_from is not None and point.y_to is not None:
            parts.append(f'<path class="bar" d="M{x:.1f} {plot.y(point.y_from):.1f}V{plot.y(point.y_to):.1f}"/>')
        if point.x_to is not None:
            parts.append(f'<path class="bar" d="M{x:.1f} {y:.1f}H{plot.x(point.x_to):.1f}"/>')
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>')
    lines = [(plot.x(point.x) - 6, plot.x(point.x_to or point.x) + 6, plot.y(point.y)) for point in points]
    parts += _labels([(point.name, plot.x(point.x), plot.y(point.y)) for point in points], lines, raised=12)
    description = "; ".join(f"{point.name}: {point.y:.2f} % at {point.x:.3g} ms" for point in points)
    return _svg(title, description, HEIGHT, parts)


def waterfall(title: str, bars: Sequence[Bar]) -> str:
    """Return a waterfall chart: one row per bar, each from the value before to its own, in percent."""
    height = TOP + ROW_HEIGHT * len(bars) + BOTTOM
    values = [bar.value for bar in bars]
    spread = max(max(values) - min(values), 1.0)
    low, high = max(0.0, min(values) - 0.15 * spread), max(values) + 0.15 * spread
    left, right = NAME_WIDTH, WIDTH - NOTE_WIDTH
    parts = []
    for tick in _ticks(low, high, 5):
        x = left + (tick - low) / (high - low) * (right - left)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{height - BOTTOM}"/>')
        parts.append(f'<text class="muted" x="{x:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="muted" x="{(left + right) / 2}" y="{height - 8}" text-anchor="middle">top-1 %</text>')
    for index, bar in enumerate(bars):
        middle = TOP + ROW_HEIGHT * (index + 0.5)
        start = low if bar.before is None else bar.before
        kind = "neutral" if bar.before is None else "good" if bar.value >= bar.before else "bad"
        x0, x1 = (left + (value - low) / (high - low) * (right - left) for value in sorted((start, bar.value)))
        parts.append(f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end">{escape(_shortened(bar.name))}</text>')
        parts.append(f'<rect class="mark {kind}" x="{x0:.1f}" y="{middle - 8}" width="{max(x1 - x0, 2):.1f}" '
                     f'height="16" rx="2"/>')  # fmt: skip
        parts.append(f'<text class="muted" x="{right + 10}" y="{middle + 4}">{escape(bar.note)}</text>')
    description = "; ".join(f"{bar.name}: {bar.value:.2f} %, {bar.note}" for bar in bars)
    return _svg(title, description, height, parts)


def curves(title: str, y_title: str, lines: Sequence[Curve]) -> str:
    """Return a chart of lines over epochs; NaN and infinite values are left out."""
    height = 260
    steps = max(len(line.values) for line in lines)
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    plot = _Plot(1.0, float(max(steps, 2)), min(finite, default=0.0), max(finite, default=1.0), height, right=110)
    parts = [*plot.axes("epoch", y_title)]
    for line in lines:
        places = [(plot.x(step), plot.y(value)) for step, value in enumerate(line.values, 1) if math.isfinite(value)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<g class="{escape(line.kind)}"><polyline class="line" points="{path}"/></g>')
    parts += _labels([(line.name, plot.x(len(line.values)), plot.y(line.values[-1])) for line in lines
                      if line.values and math.isfinite(line.values[-1])])  # fmt: skip
    description = "; ".join(f"{line.name} ends at {line.values[-1]:.4g}" for line in lines if line.values)
    return _svg(title, description, height, parts)


class _Plot:
    """The mapping from values to pixels, with a margin of 12 % above and below."""

    def __init__(
        self, x_low: float, x_high: float, y_low: float, y_high: float, height: int, right: int = RIGHT
    ) -> None:
        margin = 0.12 * (y_high - y_low) or 1.0
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low - margin, y_high + margin
        self.height, self.right = height, right

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        return TOP + (self.y_high - value) / (self.y_high - self.y_low) * (self.height - TOP - BOTTOM)

    def axes(self, x_title: str, y_title: str) -> list[str]:
        floor, end = self.height - BOTTOM, WIDTH - self.right
        parts = []
        for tick in _ticks(self.y_low, self.y_high, 6):
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{end}"/>')
            parts.append(f'<text class="muted" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in _ticks(self.x_low, self.x_high, 8):
            x = self.x(tick)
            parts.append(f'<path class="axis" d="M{x:.1f} {floor}v5"/>')
            parts.append(f'<text class="muted" x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<path class="axis" d="M{LEFT} {floor}H{end}"/>')
        parts.append(
            f'<text x="{(LEFT + end) / 2}" y="{self.height - 8}" text-anchor="middle">{escape(x_title)}</text>'
        )
        middle = (TOP + floor) / 2
        parts.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
                     f"{escape(y_title)}</text>")  # fmt: skip
        return parts


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return about `most` round values from low to high, spaced by 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _labels(
    places: list[tuple[str, float, float]], lines: Sequence[tuple[float, float, float]] = (), raised: float = 0.0
) -> list[str]:
    """Return names beside their points (name, x, y), moved down to avoid overlaps, and to the left at the right edge.

    lines: (x, x, y) of horizontal lines to avoid. raised: pixels above the point at which to begin.
    """
    parts: list[str] = []
    occupied = [(begin, end, y - 1, y + 1) for begin, end, y in lines]  # left, right, top, bottom
    for name, x, y in sorted(places, key=lambda place: place[2]):
        width = LETTER_WIDTH * len(name)
        left = x + 10 if x + 10 + width <= WIDTH else x - 10 - width
        baseline = y - raised + 4
        while any(left < end and begin < left + width and baseline - LABEL_HEIGHT + DESCENT < bottom
                  and top < baseline + DESCENT for begin, end, top, bottom in occupied):  # fmt: skip
            baseline += 2
        occupied.append((left, left + width, baseline - LABEL_HEIGHT + DESCENT, baseline + DESCENT))
        if baseline - y > LABEL_HEIGHT:
            parts.append(f'<path class="axis" d="M{x:.1f} {y:.1f}L{left - 2:.1f} {baseline - 4:.1f}"/>')
        parts.append(f'<text class="name" x="{left:.1f}" y="{baseline:.1f}">{escape(name)}</text>')
    return parts


def _shortened(name: str) -> str:
    most = int((NAME_WIDTH - 12) / LETTER_WIDTH)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _svg(title: str, description: str, height: int, parts: list[str]) -> str:
    """Return an SVG element that screen readers read as its title and description."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
