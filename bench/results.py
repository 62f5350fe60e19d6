"""What was measured: samples in a table, and what was promised held against their medians."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .plots import Bars, Picture

# How the names of rows begin that are ours, and that no cache can beat: sendfile by nginx, a
# direct download, a program that does only what has to be done.
_OURS = "mirror"
_LIMITS = ("nginx", "upstream", "direct", "limit")


@dataclass(frozen=True)
class Spread:
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.samples)

    def __str__(self) -> str:
        middle, low, high = map(short, (self.median, min(self.samples), max(self.samples)))
        return middle if low == high else f"{middle} ({low}–{high})"


@dataclass
class Table:
    """Rows are those who were measured, columns what of them; a cell is all rounds' samples."""

    title: str
    cells: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        self.cells.setdefault(row, {}).setdefault(column, []).append(value)

    def median(self, row: str, column: str) -> float | None:
        samples = self.cells.get(row, {}).get(column)
        return median(samples) if samples else None

    def ratio(self, column: str, row: str, other: str) -> float | None:
        """How the medians of two rows compare; None when one was not measured."""
        upper, lower = self.median(row, column), self.median(other, column)
        return upper / lower if upper is not None and lower else None

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))

    def lines(self) -> Iterator[str]:
        """As Markdown: the median, and in parentheses the smallest and the largest."""
        yield f"**{self.title}**"
        yield ""
        yield f"| | {' | '.join(self.columns)} |"
        yield f"|---|{'---|' * len(self.columns)}"
        for row, cells in self.cells.items():
            shown = (str(Spread(cells[name])) if name in cells else "–" for name in self.columns)
            yield f"| {row} | {' | '.join(shown)} |"


@dataclass(frozen=True)
class Target:
    """A promise and what came of it. `value` None: it could not be measured here.

    `of`: the table and the column that it is about; `row`: which of its rows is ours. With these
    its line in bench/README.md shows what peers and limits gave in the same place.
    """

    promise: str
    value: float | None
    bound: float
    at_least: bool = False
    of: tuple[Table, str] | None = None
    row: str = "mirror"

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        sign = "≥" if self.at_least else "≤"
        value = "–" if self.value is None else short(self.value)
        met = {True: "yes", False: "**no**", None: "not measured"}[self.met]
        return f"| {self.promise} | {sign} {short(self.bound)} | {value} | {met} |"

    def document(self) -> dict[str, Any]:
        return {
            "promise": self.promise,
            "bound": self.bound,
            "at_least": self.at_least,
            "value": self.value,
            "met": self.met,
            "beside": self._beside(),
        }

    def _beside(self) -> dict[str, tuple[str, float]]:
        """The medians of the mirror, of the best peer and of the limit, with their names."""
        if self.of is None:
            return {}
        table, column = self.of
        found = {name: table.median(name, column) for name in table.cells}
        medians = {name: value for name, value in found.items() if value is not None}
        limits = [name for name in medians if name.startswith(_LIMITS)]
        peers = [name for name in medians if not name.startswith((*_LIMITS, _OURS))]
        best = max if self.at_least else min
        chosen = {
            "mirror": self.row if self.row in medians else None,
            "peer": best(peers, key=medians.__getitem__, default=None),
            "limit": limits[0] if limits else None,
        }
        return {role: (name, medians[name]) for role, name in chosen.items() if name}


@dataclass
class Result:
    """One figure's outcome."""

    tables: list[Table]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plots: list[Picture] = field(default_factory=list)

    def pictures(self, title: str) -> list[Picture]:
        """The figure's own plots, and one of what its targets are about."""
        groups = {
            f"{table.title}: {column}": {
                row: cells[column] for row, cells in table.cells.items() if cells.get(column)
            }
            for table, column in (target.of for target in self.targets if target.of)
        }
        groups = {name: bars for name, bars in groups.items() if bars}
        return [*([Bars(title, groups)] if groups else []), *self.plots]

    def lines(self) -> Iterator[str]:
        for table in self.tables:
            yield from table.lines()
            yield ""
        if self.targets:
            yield "| target | bound | came out | met |"
            yield "|---|---|---|---|"
            yield from (target.line() for target in self.targets)
            yield ""
        for note in self.notes:
            yield f"- {note}"

    def document(self) -> dict[str, Any]:
        """For JSON: every sample."""
        return {
            "tables": [{"title": table.title, "samples": table.cells} for table in self.tables],
            "targets": [target.document() for target in self.targets],
            "notes": self.notes,
        }


def interleave(rounds: int, contestants: Mapping[str, Callable[[], None]]) -> None:
    """Each contestant once a round, and each round begun by another one: what disturbs the machine
    for a while disturbs all of them."""
    order = list(contestants)
    for number in range(rounds):
        turn = number % len(order) if order else 0
        for name in _rotated(order, turn):
            contestants[name]()


def _rotated(order: Sequence[str], by: int) -> Iterable[str]:
    return [*order[by:], *order[:by]]


def short(value: float) -> str:
    """Three significant digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.4f}"
