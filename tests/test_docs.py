"""The pages: what they lead to is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .e2e.test_registries import REAL
from .vendors import PROFILES
from .vendors.table import row_of

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    str(page.relative_to(ROOT))
    for folder in (".", "docs", "bench", "bench/results", "deploy")
    for page in (ROOT / folder).glob("*.md")
)
TOPS = "mirror|tests|bench|demo|deploy|docs"
LONGEST = 110  # lines of the README: read in one go

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"(?m)^#+ (.*)$")
PATH = re.compile(rf"(?<![\w./-])((?:{TOPS})/[\w./-]*[\w/])")
ROW = re.compile(r"(?m)^\| F(\d+) \|(.*)\|$")
FAULT_TEST = re.compile(r"(?m)^ *(?:async )?def test_((?:f\d+_)+)")


def text_of(page: str | Path) -> str:
    return (ROOT / page).read_text()


def prose_of(page: str | Path) -> str:
    """The page without its indented blocks, which are other programs' words."""
    return re.sub(r"(?m)^    .*$", "", text_of(page))


def anchors_of(page: Path) -> set[str]:
    """Those that GitHub makes of the headings."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text_of(page)))
    return {each.replace(" ", "-") for each in words}


def tree_of(page: str) -> Iterator[str]:
    """The paths in the page's tree: a block that begins with `mirror/`, a level every two spaces.
    A line of a folder may name files of it in its words."""
    block = re.search(r"(?m)^    mirror/\n(?:^    .*\n)+", text_of(page))
    folders = [""]
    for line in block[0].splitlines() if block else ():
        found = re.fullmatch(r"    ( *)([\w./]+)(.*)", line)
        if found is None or len(found[1]) > 2 * len(folders):
            continue  # goes on with the words of the line before
        depth, name = len(found[1]) // 2, found[2]
        path = folders[depth] + name
        yield path
        if name.endswith("/"):
            folders[depth + 1 :] = [path]
            yield from (path + inside for inside in re.findall(r"(?<![\w/])\w+\.py", found[3]))


def fault_tests() -> dict[str, set[str]]:
    """The files below tests/ that have tests of each fault's number."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "tests").rglob("*.py"):
        for numbers in FAULT_TEST.findall(file.read_text()):
            for number in re.findall(r"\d+", numbers):
                found.setdefault(number, set()).add(str(file.relative_to(ROOT / "tests")))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), link
        if anchor:
            assert anchor in anchors_of(file), link


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_are_named_exist(page: str) -> None:
    for path in PATH.findall(prose_of(page)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(("page", "least"), [("README.md", 10), ("docs/design.md", 120)])
def test_what_stands_in_the_trees_exists(page: str, least: int) -> None:
    paths = list(tree_of(page))
    assert len(paths) >= least
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_design_has_every_module() -> None:
    named = set(tree_of("docs/design.md"))
    here = {str(file.relative_to(ROOT)) for file in (ROOT / "mirror").rglob("*.py")}
    assert {path for path in here if not path.endswith("__.py")} - named == set()


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= LONGEST


def test_every_fault_with_a_test_has_its_line_and_its_tests_are_where_it_says() -> None:
    tests = fault_tests()
    rows = ROW.findall(text_of("docs/faults.md"))
    assert sorted(number for number, _ in rows) == sorted(tests)
    for number, words in rows:
        places = re.findall(r"`([\w/]+\.py)`", words.rpartition("|")[2])
        assert places, number
        assert set(places) <= tests[number], number


def test_the_registries_that_were_tried_are_those_of_the_tests() -> None:
    page = text_of("docs/upstreams.md").partition("\n## What was run\n")[2]
    emulated = [row_of(profile) for profile in PROFILES]
    real = [f"| `{name}` | {what} |" for name, what in REAL.items()]
    assert re.findall(r"(?m)^\| `.*$", page) == emulated + real
