"""The charts of a report: learning curves, learning rates, and swept values beside the objective. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bertpar.compare import Comparison, RunResult
from bertpar.report import svg
from bertpar.report.contents import Curve, Curves

_FEW_POINTS = 12
"""Up to so many points a curve shows each of them."""

_LR_KEYS = ("lr", "optim.lr")


@dataclass(frozen=True, kw_only=True)
class Series:
    """How a run or configuration is told apart in all charts."""

    name: str
    colour: str


def series_of(comparison: Comparison) -> dict[str, Series]:
    """Return the series of each completed run, by its id: that of its configuration, coloured by place."""
    return {
        run.run.run_id: Series(name=row.configuration.name, colour=svg.colour(row.place - 1))
        for row in comparison.rows
        for run in row.configuration.runs
    }


def curves_chart(
    curves: Sequence[Curves], which: Callable[[Curves], Curve], y_title: str, series: Mapping[str, Series]
) -> Markup | None:
    """Return one line for each run that has points, the first of the series on top; None where no run has points."""
    places = {run_id: place for place, run_id in enumerate(series)}
    drawn = [(curve.run_id, which(curve)) for curve in curves if which(curve)]
    drawn.sort(key=lambda item: places.get(item[0], len(places)))
    if not drawn:
        return None
    points = [(float(step), value) for _, curve in drawn for step, value in curve if math.isfinite(value)]
    if not points:
        return None
    plane = svg.Plane.around([x for x, _ in points], [y for _, y in points])
    lines = [_curve(plane, run_id, curve, series.get(run_id)) for run_id, curve in drawn]
    return svg.chart(plane, reversed(lines), x_title="optimizer step", y_title=y_title)  # the best on top


def _curve(plane: svg.Plane, run_id: str, curve: Curve, series: Series | None) -> Markup:
    placed = [plane.place((step, value)) for step, value in curve if math.isfinite(value)]
    told = f"{run_id}: {series.name if series else 'not compared'}"
    return svg.line(placed, series.colour if series else "other", told, dots=len(placed) <= _FEW_POINTS)


# --- learning rates ---------------------------------------------------------------------------------------


def learning_rate_chart(comparison: Comparison) -> tuple[Markup, list[Series]] | None:
    """Return the objective by the learning rate, and its series: a line for each choice of the other swept keys.

    None where fewer than two positive learning rates were tried.
    """
    runs = [(row, run) for row in comparison.rows for run in row.configuration.runs]
    rates = sorted({_rate(run) for _, run in runs})
    if len(rates) < 2 or rates[0] <= 0:
        return None
    plane = svg.Plane.around(rates, [run.objective for _, run in runs], log_x=True)
    others = [{k: v for k, v in row.configuration.swept.items() if k not in _LR_KEYS} for row, _ in runs]
    differing = [key for key in others[0] if len({other[key] for other in others}) > 1]
    groups: dict[str, list[RunResult]] = {}
    for (_, run), other in zip(runs, others, strict=True):
        groups.setdefault(",".join(f"{key}={other[key]}" for key in differing), []).append(run)
    series = [Series(name=name or "all runs", colour=svg.colour(place)) for place, name in enumerate(groups)]
    marks = [_rate_series(plane, group, one) for group, one in zip(groups.values(), series, strict=True)]
    chart = svg.chart(plane, reversed(marks), x_title="learning rate", y_title=comparison.objective, x_ticks=rates)
    return chart, series


def _rate(run: RunResult) -> float:
    return float(run.configuration["optim.lr"])


def _rate_series(plane: svg.Plane, runs: Sequence[RunResult], series: Series) -> Markup:
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        by_rate.setdefault(_rate(run), []).append(run.objective)
    means = [plane.place((rate, sum(values) / len(values))) for rate, values in sorted(by_rate.items())]
    dots = [
        svg.dot(plane.place((_rate(run), run.objective)), series.colour, f"{run.name}: {svg.number(run.objective)}")
        for run in runs
    ]
    return svg.line(means, series.colour, f"mean of {series.name}", dots=False) + Markup("").join(dots)


# --- parallel coordinates ---------------------------------------------------------------------------------

_LEAST_GAP, _AXIS_HEIGHT, _MARGIN, _HEAD = 116, 210, 64, 40
_MOST_LABELS = 8
_LOG_FROM = 8.0
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


def parallel_chart(comparison: Comparison) -> Markup | None:
    """Return a line for each run through its swept values and seed to its objective; None where nothing differs."""
    runs = [(row, run) for row in comparison.rows for run in row.configuration.runs]
    values = [{**row.configuration.swept, "seed": str(run.seed)} for row, run in runs]
    keys = [key for key in values[0] if len({value[key] for value in values}) > 1]
    if not keys or len(runs) < 2:
        return None
    axes = [_Axis.of(key, [value[key] for value in values]) for key in keys]
    objective = _Axis.of(comparison.objective, [repr(run.objective) for _, run in runs], numbers_alone=True)
    gap = max(_LEAST_GAP, (svg.WIDTH - 2 * _MARGIN) // len(axes))
    xs = [_MARGIN + i * gap for i in range(len(axes) + 1)]
    order = sorted(range(len(runs)), key=lambda i: runs[i][1].objective, reverse=comparison.mode == "min")
    lines = []
    for place, i in enumerate(order):  # the best last, on top
        run = runs[i][1]
        ys = [axis.y(values[i][axis.key]) for axis in axes] + [objective.y(repr(run.objective))]
        share = 100.0 * place / max(1, len(order) - 1)
        told = svg.title(f"{run.name}: {comparison.objective} {svg.number(run.objective)}")
        path = " ".join(f"{'L' if j else 'M'}{x} {y:.1f}" for j, (x, y) in enumerate(zip(xs, ys, strict=True)))
        lines.append(svg.tag("g", told + svg.tag("path", d=path, class_="ranked", style=f"--share:{share:.0f}%")))
    drawn = [axis.draw(x) for x, axis in zip(xs, [*axes, objective], strict=True)]
    width, height = xs[-1] + _MARGIN, _HEAD + _AXIS_HEIGHT + 20
    return svg.drawing(width, height, [*lines, *drawn], f"swept values of each run beside its {comparison.objective}")


@dataclass(frozen=True, kw_only=True)
class _Axis:
    key: str
    places: dict[str, float]
    """From 0 (bottom) to 1, by value as it is written."""

    @classmethod
    def of(cls, key: str, values: Sequence[str], *, numbers_alone: bool = False) -> _Axis:
        distinct = list(dict.fromkeys(values))
        numbers = [_as_number(value) for value in distinct]
        known = [number for number in numbers if number is not None]
        if len(known) < len(distinct):
            return cls(key=key, places={v: _share(i, 0, len(distinct) - 1) for i, v in enumerate(sorted(distinct))})
        log = not numbers_alone and min(known) > 0 and max(known) / min(known) >= _LOG_FROM
        scaled = [math.log(number) if log else number for number in known]
        places = {v: _share(at, min(scaled), max(scaled)) for v, at in zip(distinct, scaled, strict=True)}
        return cls(key=key, places=places)

    def y(self, value: str) -> float:
        return _HEAD + (1 - self.places[value]) * _AXIS_HEIGHT

    def draw(self, x: float) -> Markup:
        parts = [svg.tag("line", x1=x, x2=x, y1=_HEAD, y2=_HEAD + _AXIS_HEIGHT, class_="axis")]
        parts.append(svg.text(x, _HEAD - 16, _label(self.key.rpartition(".")[2], 16), anchor="middle", class_="title"))
        by_place = sorted(self.places, key=lambda value: self.places[value])
        labelled = by_place if len(by_place) <= _MOST_LABELS else [by_place[0], by_place[-1]]
        above = -math.inf
        for value in reversed(labelled):  # from the top: a label that would touch the one above it is left out
            y = self.y(value)
            if y - above >= 14:
                parts.append(svg.text(x + 6, y + 4, _label(value), class_="tick halo"))
                above = y
        return Markup("").join(parts)


def _as_number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _share(at: float, low: float, high: float) -> float:
    return (at - low) / (high - low) if high > low else 0.5


def _label(value: str, longest: int = 14) -> str:
    number = _as_number(value)
    told = value if number is None else svg.number(number)
    return told if len(told) <= longest else f"{told[: longest - 1]}…"
