"""Plots as SVG text, which reads in light and dark: colours are classes that the page's style sheet knows.

Every point carries its figure as a tooltip, so a plot holds all numbers that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 42  # pixels around the frame
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low`, left or at the bottom, to `high`, which may be the smaller number."""

    label: str
    low: float
    high: float
    is_share: bool = False  # ticks in per cent
    ticks: tuple[float, ...] | None = None

    def places(self) -> tuple[float, ...]:
        """Round numbers, about five of them."""
        if self.ticks is not None:
            return self.ticks
        start, end = sorted((self.low, self.high))
        span = end - start
        step = 10 ** np.floor(np.log10(span / _TICKS))
        step *= next(size for size in (1, 2, 5, 10) if span / (size * step) <= _TICKS + 1e-9)
        first, last = np.ceil(start / step - 1e-9), np.floor(end / step + 1e-9)
        return tuple(float(place) for place in step * np.arange(first, last + 1))

    def told(self, value: float) -> str:
        told = f"{100 * value:.3g} %" if self.is_share else f"{value:,.10g}"
        return "0" + told[2:] if told in ("-0", "-0 %") else told.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Series:
    """`look` is a class of the style sheet; `notes` are the points' tooltips."""

    look: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None  # low and high
    notes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """Thin columns from the bottom, `heights` in 0..1 of a quarter of the frame."""

    x: Sequence[float]
    heights: Sequence[float]
    width: float


def plot(
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    name: str,
    size: tuple[int, int] = (440, 280),
    diagonal: bool = False,
    bars: Bars | None = None,
) -> str:
    """`name` is read out in place of the picture."""
    frame = _Frame(x, y, *size)
    parts = [frame.axes()]
    if bars is not None:
        parts += [frame.bar(at, height, bars.width) for at, height in zip(bars.x, bars.heights, strict=True)]
    if diagonal:
        parts.append(frame.line("diagonal", (x.low, x.high), (y.low, y.high)))
    parts += [frame.band(one) for one in series if one.band is not None]
    parts += [frame.line(f"line {one.look}", one.x, one.y) for one in series]
    parts += [frame.points(one) for one in series if one.notes is not None]
    return _svg(size, name, parts)


def forest(rows: Sequence[tuple[str, float, tuple[float, float] | None, str]], *, x: Axis, name: str) -> str:
    """One line each of (title, value, interval, look): a dot with its interval, as trials are shown."""
    height = 26 * len(rows) + 48
    left, right, bottom = 170, 920, height - 38
    scale = (right - left) / (x.high - x.low)

    def across(value: float) -> float:
        return left + (min(max(value, x.low), x.high) - x.low) * scale

    parts = [_tick(across(place), bottom, x.told(place), top=8) for place in x.places()]
    parts.append(
        f'<text class="label" x="{(left + right) / 2:.0f}" y="{height - 4}">{escape(x.label)}</text>'
    )
    for number, (title, value, interval, look) in enumerate(rows):
        at = 22 + 26 * number
        parts.append(f'<text class="row" x="{left - 12}" y="{at + 4}">{escape(title)}</text>')
        if interval is not None:
            low, high = map(across, interval)
            parts.append(f'<path class="whisker {look}" d="M{low:.1f} {at}H{high:.1f}"/>')
        parts.append(f'<circle class="dot {look}" cx="{across(value):.1f}" cy="{at}" r="4.5"/>')
    return _svg((960, height), name, parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    x: Axis
    y: Axis
    width: int
    height: int

    def across(self, value: float) -> float:
        return _LEFT + (value - self.x.low) / (self.x.high - self.x.low) * (self.width - _LEFT - _RIGHT)

    def down(self, value: float) -> float:
        inside = self.height - _TOP - _BOTTOM
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return _TOP + (1 - min(max(share, 0), 1)) * inside

    def axes(self) -> str:
        bottom, middle = self.height - _BOTTOM, (self.height - _BOTTOM + _TOP) / 2
        parts = [_tick(self.across(place), bottom, self.x.told(place), top=_TOP) for place in self.x.places()]
        for place in self.y.places():
            at = self.down(place)
            parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{self.width - _RIGHT}"/>')
            parts.append(
                f'<text class="tick-y" x="{_LEFT - 6}" y="{at + 3.5:.1f}">{self.y.told(place)}</text>'
            )
        centre = (self.width - _RIGHT + _LEFT) / 2
        parts.append(
            f'<text class="label" x="{centre:.0f}" y="{self.height - 6}">{escape(self.x.label)}</text>'
        )
        turned = f'transform="translate(11 {middle:.0f}) rotate(-90)"'
        parts.append(f'<text class="label" {turned}>{escape(self.y.label)}</text>')
        return "".join(parts)

    def line(self, look: str, x: Sequence[float], y: Sequence[float]) -> str:
        return f'<polyline class="{look}" points="{self._path(x, y)}"/>'

    def band(self, series: Series) -> str:
        assert series.band is not None
        low, high = series.band
        around = f"{self._path(series.x, high)} {self._path(series.x[::-1], low[::-1])}"
        return f'<polygon class="band {series.look}" points="{around}"/>'

    def points(self, series: Series) -> str:
        assert series.notes is not None
        return "".join(
            f'<circle class="dot {series.look}" cx="{self.across(x):.1f}" cy="{self.down(y):.1f}" r="3">'
            f"<title>{escape(note)}</title></circle>"
            for x, y, note in zip(series.x, series.y, series.notes, strict=True)
        )

    def bar(self, at: float, height: float, width: float) -> str:
        tall = height * (self.height - _TOP - _BOTTOM) / 4
        left, right = self.across(at - width / 2) + 0.5, self.across(at + width / 2) - 0.5
        top = self.height - _BOTTOM - tall
        return (
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{tall:.1f}"/>'
        )

    def _path(self, x: Sequence[float], y: Sequence[float]) -> str:
        places = zip(x, y, strict=True)
        return " ".join(f"{self.across(one):.1f},{self.down(other):.1f}" for one, other in places)


def _tick(across: float, bottom: float, told: str, *, top: float) -> str:
    grid = f'<path class="grid" d="M{across:.1f} {top}V{bottom}"/>'
    return f'{grid}<text class="tick-x" x="{across:.1f}" y="{bottom + 15}">{told}</text>'


def _svg(size: tuple[int, int], name: str, parts: Sequence[str]) -> str:
    width, height = size
    broad = ' class="broad"' if width > 600 else ""
    opening = f'<svg{broad} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">'
    return f"{opening}{''.join(parts)}</svg>"
