"""The command line: `python -m bench [FIGURE …] [--quick]`, or `python -m bench table`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from . import report, table
from .figures import FIGURES, Figure
from .machine import description, disturbance, versions
from .programs import ROOT, Unavailable
from .scale import FULL, QUICK, Scale
from .servers import House, WrongAnswer

RESULTS = ROOT / "bench/results"

TABLE = "table"
"""In place of a figure: no measurement, but the table in bench/README.md, made of those taken."""

# A real client that fails is an AssertionError, and what does not come in time a TimeoutError.
FAILURES = (Unavailable, WrongAnswer, RuntimeError, AssertionError, TimeoutError)


def main(words: list[str] | None = None) -> int:
    """Measures, prints, and writes what came out. 2: a word was wrong; 1: a figure failed."""
    options = _options(words)
    if options.figures == [TABLE]:
        return _write_table(options.results or RESULTS, options.readme)
    names = [name for word in options.figures + options.only for name in word.split(",") if name]
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"no figure {', '.join(unknown)}; there are: {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, long_rounds=options.rounds)
    # What is not taken in full never takes the place of what was.
    results = options.results or (RESULTS if scale == FULL else RESULTS / "tmp")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is to stay behind
    failed = False
    for name in names or FIGURES:
        try:
            taken = _taken(FIGURES[name], scale)
        except FAILURES as error:
            print(f"bench: {name} could not be measured: {error}", file=sys.stderr)
            failed = True
            continue
        print("\n".join(taken.lines(name)), flush=True)
        report.write(results, name, taken, list(FIGURES))
    return int(failed)


def _taken(figure: Figure, scale: Scale) -> report.Taken:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with disturbance() as found, House(Path(folder)) as house:
            result = figure.measure(house, scale)
        return report.Taken(
            title=figure.TITLE,
            result=result,
            date=time.strftime("%Y-%m-%d %H:%M"),
            rounds=scale.rounds,
            long_rounds=scale.long_rounds,
            others=found.share,
            machine=description(Path(folder)),
            versions=versions(),
            quick=scale.blob < FULL.blob,
        )


def _write_table(results: Path, readme: Path) -> int:
    try:
        documents = json.loads((results / "latest.json").read_text())
        readme.write_text(table.rewritten(readme.read_text(), documents))
    except (OSError, table.NoBlock) as error:
        print(f"bench: {readme} was left as it is: {error}", file=sys.stderr)
        return 1
    return 0


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; or {TABLE}"
    )
    parser.add_argument("--only", action="append", default=[], metavar="FIGURE[,FIGURE]")
    parser.add_argument("--quick", action="store_true", help="small and short: to see that it runs")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of five, or of three")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="instead of bench/results")
    parser.add_argument("--readme", type=Path, default=ROOT / "bench/README.md", metavar="FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
