"""Plots as SVG: the same samples give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol
from xml.sax.saxutils import escape

Line = Sequence[tuple[float, Sequence[float]]]
"""Points: where, and what was measured there."""

# Told apart by people who see few colours, too (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#666666")
_INK, _FAINT = "#222222", "#dddddd"
_CHARACTER, _TITLE_CHARACTER = 7, 9  # pixels, about


class Picture(Protocol):
    """What can be drawn. `title` is unique within a figure."""

    @property
    def title(self) -> str: ...

    def svg(self) -> str: ...


@dataclass(frozen=True)
class Lines:
    """How something grows: x by powers of ten, y from 0; medians, and bars from the smallest to
    the largest sample."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Line]

    def svg(self) -> str:
        return _document(680, 360, self.title, self._body())

    def _body(self) -> Iterator[str]:
        left, right, top, bottom = 70.0, 620.0, 70.0, 310.0
        points = [point for line in self.lines.values() for point in line]
        first = math.log10(min(x for x, _ in points))
        last = max(math.log10(max(x for x, _ in points)), first + 1)
        ticks = _ticks(max(max(samples) for _, samples in points))

        def across(x: float) -> float:
            return left + (math.log10(x) - first) / (last - first) * (right - left)

        def up(y: float) -> float:
            return bottom - y / ticks[-1] * (bottom - top)

        for tick in ticks:
            yield _rule(left, up(tick), right, up(tick), _FAINT)
            yield _text(left - 8, up(tick) + 4, _number(tick), "end")
        for power in range(math.ceil(first), math.floor(last) + 1):
            yield _rule(across(10**power), bottom, across(10**power), bottom + 5, _INK)
            yield _text(across(10**power), bottom + 20, _number(10**power), "middle")
        yield _rule(left, bottom, right, bottom, _INK)
        yield _text((left + right) / 2, bottom + 42, self.x, "middle")
        yield _text(left, top - 12, self.y, "end")
        place = left
        for (name, line), colour in zip(self.lines.items(), _COLOURS, strict=False):
            yield _rule(place + 10, 46, place + 34, 46, colour, 3)
            yield _text(place + 40, 50, name)
            place += 50 + _CHARACTER * len(name)
            path = " ".join(f"{across(x):.1f},{up(median(ys)):.1f}" for x, ys in line)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            for x, ys in line:
                yield _rule(across(x), up(min(ys)), across(x), up(max(ys)), colour)
                yield (
                    f'<circle cx="{across(x):.1f}" cy="{up(median(ys)):.1f}" r="3.5" '
                    f'fill="{colour}"/>'
                )


@dataclass(frozen=True)
class Bars:
    """Who reached what: a group for each thing measured, each with a scale of its own; medians,
    and whiskers from the smallest to the largest sample."""

    title: str
    groups: Mapping[str, Mapping[str, Sequence[float]]]

    def svg(self) -> str:
        rows = sum(1.6 + len(bars) for bars in self.groups.values())
        width = max(640, 32 + _TITLE_CHARACTER * max(map(len, (self.title, *self.groups))))
        return _document(width, 50 + 22 * rows, self.title, self._body())

    def _body(self) -> Iterator[str]:
        names = list(dict.fromkeys(name for bars in self.groups.values() for name in bars))
        colours = {name: _COLOURS[n % len(_COLOURS)] for n, name in enumerate(names)}
        left, right, y = 16.0 + _CHARACTER * max(map(len, names)), 540.0, 40.0
        for group, bars in self.groups.items():
            largest = max(max(samples) for samples in bars.values()) or 1
            y += 22
            yield _text(16, y, group, bold=True)
            y += 8
            for name, samples in bars.items():
                low, middle, high = (
                    left + value / largest * (right - left)
                    for value in (min(samples), median(samples), max(samples))
                )
                yield _text(left - 8, y + 14, name, "end")
                yield (
                    f'<rect x="{left:.1f}" y="{y + 2:.1f}" width="{middle - left:.1f}" '
                    f'height="16" fill="{colours[name]}"/>'
                )
                yield _rule(low, y + 10, high, y + 10, _INK)
                yield _text(max(high, middle) + 8, y + 14, _number(median(samples)))
                y += 22
            y += 5


def _document(width: float, height: float, title: str, body: Iterator[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(16, 24, title, bold=True, size=14),
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(
    x: float, y: float, words: str, anchor: str = "start", bold: bool = False, size: int = 12
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{_INK}"{weight}>{escape(words)}</text>'
    )


def _rule(x: float, y: float, to_x: float, to_y: float, colour: str, width: int = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _ticks(largest: float) -> list[float]:
    """From 0 to no less than the largest, in four to eight round steps."""
    if largest <= 0:
        return [0.0, 1.0]
    step = 10.0 ** math.floor(math.log10(largest / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if largest / (step * factor) <= 6)
    return [step * number for number in range(math.ceil(largest / step) + 1)]


def _number(value: float) -> str:
    """Three significant digits."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", "\u2009")
    return f"{value:.3g}"
