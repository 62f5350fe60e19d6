"""The table in bench/README.md: what was promised and what came out, made from `latest.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .results import short

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


class NoBlock(Exception):
    """The text has no marks between which the table could go."""


def rewritten(text: str, documents: Mapping[str, Any]) -> str:
    """The text with this table between its marks. Raises NoBlock."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoBlock(f"it has no lines {BEGIN} and {END}, in this order")
    return "\n".join([before + BEGIN, *_lines(documents), END]) + after


def _lines(documents: Mapping[str, Any]) -> Iterator[str]:
    targets = [
        (name, target) for name, document in documents.items() for target in document["targets"]
    ]
    met = sum(target["met"] is True for _, target in targets)
    yield f"{met} of {len(targets)} targets are met."
    yield ""
    yield "| | what | mirror | best peer | limit | target | came out | met |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, target in targets:
        yield _row(name, target)
    yield ""
    yield from _circumstances(documents)


def _row(name: str, target: Mapping[str, Any]) -> str:
    beside = target.get("beside", {})
    ours = beside.get("mirror")
    cells = [
        f"[`{name}`](results/latest.md)",
        target["promise"],
        short(ours[1]) if ours else "",
        *(_named(beside.get(role)) for role in ("peer", "limit")),
        f"{'≥' if target['at_least'] else '≤'} {short(target['bound'])}",
        "–" if target["value"] is None else short(target["value"]),
        {True: "yes", False: "**no**", None: "not measured"}[target["met"]],
    ]
    return f"| {' | '.join(cells)} |"


def _named(found: tuple[str, float] | None) -> str:
    return f"{short(found[1])} ({found[0]})" if found else ""


def _circumstances(documents: Mapping[str, Any]) -> Iterator[str]:
    """Once for all figures that were taken in the same ones."""
    taken: dict[str, list[str]] = {}
    for name, document in documents.items():
        taken.setdefault(_words(document), []).append(name)
    for words, names in taken.items():
        which = "All" if len(taken) == 1 else ", ".join(f"`{name}`" for name in names)
        yield f"- {which}: {words}"


def _words(document: Mapping[str, Any]) -> str:
    words = f"{document['date'].partition(' ')[0]}; {document['rounds']} rounds, medians"
    if document["quick"]:
        words += "; **a quick run, which measures nothing**"
    if document["others"] > 0.02:
        words += "; **other programs used much of the machine**"
    machine = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    return f"{words}. {machine}. {versions}."
