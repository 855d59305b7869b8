"""Drawings as text: scales, ticks, axes and marks of inline SVG. Pure.

Colours are classes (`c0` to `c7`, `other`), which the page's style sheet gives a colour for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 12, 44
_NUM_TICKS = 5
NUM_COLOURS = 8


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps a range of numbers to pixels, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Return a range around the values with some room at both ends; a single value gets some too."""
    low, high = _extent(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def _extent(values: Iterable[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def ticks(low: float, high: float, num: int = _NUM_TICKS) -> list[float]:
    """Return about `num` round numbers between the bounds."""
    raw = (high - low) / num
    if raw <= 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a number as short as it is read."""
    return f"{value:.4g}"


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The area of a chart with its two scales."""

    x: Scale
    y: Scale

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float], *, log_x: bool = False) -> Plane:
        """Return a plane that holds the points; with `log_x` all xs must be positive."""
        if log_x:
            low, high = min(xs), max(xs)
            x_range = (low / 1.4, high * 1.4)
        else:
            low, high = _extent(xs)
            x_range = (min(0.0, low), high * 1.02 or 1.0)
        y_range = padded(ys)
        return cls(
            x=Scale(low=x_range[0], high=x_range[1], start=_LEFT, end=WIDTH - _RIGHT, log=log_x),
            y=Scale(low=y_range[0], high=y_range[1], start=HEIGHT - _BOTTOM, end=_TOP),
        )

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        return self.x(point[0]), self.y(point[1])


def chart(
    plane: Plane, marks: Iterable[Markup], *, x_title: str, y_title: str, x_ticks: Sequence[float] | None = None
) -> Markup:
    """Return a chart with axes, grid and titles around the marks."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [_y_tick(plane, value, right) for value in ticks(plane.y.low, plane.y.high)]
    parts += [_x_tick(plane, value, bottom) for value in x_ticks or ticks(plane.x.low, plane.x.high)]
    parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(text((_LEFT + right) / 2, HEIGHT - 6, x_title, anchor="middle", class_="title"))
    parts.append(tag("text", y_title, transform=f"translate(13 {(_TOP + bottom) / 2:.0f}) rotate(-90)", class_="title"))
    return drawing(WIDTH, HEIGHT, [*parts, *marks], f"{y_title} by {x_title}")


def _y_tick(plane: Plane, value: float, right: float) -> Markup:
    y = plane.y(value)
    grid = tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid")
    return grid + text(_LEFT - 6, y + 4, number(value), anchor="end")


def _x_tick(plane: Plane, value: float, bottom: float) -> Markup:
    x = plane.x(value)
    mark = tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis")
    return mark + text(x, bottom + 18, number(value), anchor="middle")


def line(points: Sequence[tuple[float, float]], colour: str, told: str, *, dots: bool) -> Markup:
    """Return a line through points in pixels, with dots on them if wanted, that says what it is when pointed at."""
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    marks = [dot(point, colour) for point in points] if dots else []
    return tag("g", title(told) + tag("path", d=path, class_=f"line {colour}") + Markup("").join(marks))


def dot(point: tuple[float, float], colour: str, told: str = "", radius: float = 3.5) -> Markup:
    """Return a dot at a point in pixels."""
    inside = title(told) if told else ""
    return tag("circle", inside, cx=f"{point[0]:.1f}", cy=f"{point[1]:.1f}", r=radius, class_=f"dot {colour}")


def text(x: float, y: float, content: str, *, anchor: str = "start", class_: str = "tick") -> Markup:
    """Return a text at a point in pixels."""
    return tag("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def title(told: str) -> Markup:
    """Return what a browser shows when the mark is pointed at."""
    return tag("title", told)


def drawing(width: float, height: float, parts: Iterable[Markup], told: str) -> Markup:
    """Return the drawing as a whole; `told` is what a reader who cannot see it is told."""
    return tag(
        "svg",
        Markup("").join(parts),
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=told,
        class_="chart",
    )


def tag(name: str, inside: Markup | str = "", /, **attributes: object) -> Markup:
    """Return an element; `class_` and `text_anchor` are written `class` and `text-anchor`, and all is escaped."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{told}>{escape(inside)}</{name}>")


def _short(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def colour(place: int) -> str:
    """Return the class of the colour of a series by its place, from 0; later ones share an unobtrusive one."""
    return f"c{place}" if place < NUM_COLOURS else "other"
