"""What was measured reaches bench/README.md and the plots: the bad rows too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.__main__ import main
from bench.plots import Lines
from bench.programs import ROOT
from bench.report import Taken, write
from bench.results import Result, Table, Target
from bench.table import BEGIN, END, NoBlock, rewritten

README = f"# The bench\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n"


def result() -> Result:
    table = Table("GB/s")
    for name, speed in (
        ("mirror", 3.0),
        ("nginx, 2 workers", 4.0),
        ("docker-registry", 1.0),
        ("drayage", 2.0),
    ):
        table.add(name, "8 connections", speed)
    of = (table, "8 connections")
    return Result(
        [table],
        [
            Target("as fast as nginx", 0.75, 0.9, at_least=True, of=of),
            Target("faster than others", 1.5, 1.2, at_least=True, of=of),
            Target("of no table", None, 1.0),
        ],
    )


def taken(result: Result, **circumstances: Any) -> Taken:
    return Taken(
        title="a figure",
        result=result,
        date="2020-01-02 03:04",
        rounds=5,
        long_rounds=3,
        others=0.0,
        machine={"CPU": "fast"},
        versions={"nginx": "1.2"},
        quick=False,
        **circumstances,
    )


def test_the_readme_shows_every_target_beside_peer_and_limit(tmp_path: Path) -> None:
    write(tmp_path, "warm", taken(result()), ["warm"])
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert main(["table", "--results", str(tmp_path), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert "1 of 3 targets are met." in text
    rows = [line.split(" | ")[1:] for line in text.splitlines() if "`warm`" in line]
    nginx, best = "4 (nginx, 2 workers)", "2 (drayage)"
    assert rows == [
        ["as fast as nginx", "3", best, nginx, "≥ 0.9", "0.75", "**no** |"],
        ["faster than others", "3", best, nginx, "≥ 1.2", "1.5", "yes |"],
        ["of no table", "", "", "", "≤ 1", "–", "not measured |"],
    ]
    assert "CPU fast. nginx 1.2." in text
    assert text.startswith("# The bench\n")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    assert "old" not in text
    assert rewritten(text, json.loads((tmp_path / "latest.json").read_text())) == text


def test_the_table_that_is_shown_is_that_of_the_results() -> None:
    results = json.loads((ROOT / "bench/results/latest.json").read_text())
    shown = (ROOT / "bench/README.md").read_text()
    assert rewritten(shown, results) == shown


@pytest.mark.parametrize("text", ["nothing", f"{END}\n{BEGIN}"])
def test_a_readme_without_marks_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoBlock):
        rewritten(text, {})
    readme = tmp_path / "README.md"
    readme.write_text(text)
    (tmp_path / "latest.json").write_text("{}")
    assert main(["table", "--results", str(tmp_path), "--readme", str(readme)]) == 1
    assert readme.read_text() == text


def test_what_targets_are_about_is_drawn_to_scale() -> None:
    (picture,) = result().pictures("a figure")
    drawn = ElementTree.fromstring(picture.svg())
    bars = [
        float(bar.attrib["width"])
        for bar in drawn.iter("{http://www.w3.org/2000/svg}rect")
        if "%" not in bar.attrib["width"]
    ]
    mirror, nginx, registry, drayage = bars
    assert (mirror / nginx, registry / nginx, drayage / nginx) == pytest.approx(
        (0.75, 0.25, 0.5), rel=0.01
    )


def test_growth_is_drawn_by_powers_of_ten_and_from_nothing() -> None:
    line = [(1, [2.0]), (100, [1.0, 3.0]), (10_000, [4.0])]
    drawn = ElementTree.fromstring(Lines("a < b", "blobs", "ms", {"mirror": line}).svg())
    assert drawn.findtext("{*}title") == "a < b"
    circles = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    first, middle, last = (float(circle.attrib["cx"]) for circle in circles)
    assert middle == pytest.approx((first + last) / 2, abs=0.2)
    low, same, high = (float(circle.attrib["cy"]) for circle in circles)
    assert low == same
    bottom = 2 * low - high  # twice as high is twice as far from nothing
    axis = [float(rule.attrib["y1"]) for rule in drawn.iter("{http://www.w3.org/2000/svg}line")]
    assert any(y == pytest.approx(bottom, abs=0.2) for y in axis)
