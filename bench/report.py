"""Results on paper: one JSON file with every sample, and the Markdown made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .plots import Picture
from .results import Result


@dataclass(frozen=True)
class Taken:
    """One figure, and the circumstances. `others`: the share of the machine's CPU time that
    programs used which had nothing to do with it."""

    title: str
    result: Result
    date: str
    rounds: int
    long_rounds: int
    others: float
    machine: dict[str, str]
    versions: dict[str, str]
    quick: bool

    def lines(self, name: str) -> Iterator[str]:
        """As Markdown."""
        yield f"## `{name}`: {self.title}"
        yield ""
        yield from self.result.lines()
        yield f"- {self._circumstances()}"
        yield ""
        for file, picture in self.pictures(name).items():
            yield f"![{picture.title}]({file})"
            yield ""

    def _circumstances(self) -> str:
        words = f"Taken {self.date}, {self.rounds} rounds ({self.long_rounds} of what takes long)."
        if self.quick:
            words += " **A quick run: it shows that the bench works, and measures nothing.**"
        if self.others > 0.02:
            words += f" **Other programs used {self.others:.0%} of this machine meanwhile.**"
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        versions = ", ".join(f"{key} {value}" for key, value in self.versions.items())
        return f"{words} Machine: {machine}. Versions: {versions}."

    def pictures(self, name: str) -> dict[str, Picture]:
        """By the names of their files."""
        pictures = self.result.pictures(self.title)
        return {
            f"{name}{f'-{number}' if number else ''}.svg": picture
            for number, picture in enumerate(pictures)
        }

    def document(self, name: str) -> dict[str, Any]:
        """For JSON, its Markdown too: what was not measured this time is shown as it was then."""
        rest = {key: value for key, value in asdict(self).items() if key != "result"}
        return rest | self.result.document() | {"markdown": "\n".join(self.lines(name))}


def write(folder: Path, name: str, taken: Taken, order: Sequence[str]) -> None:
    """Puts this figure into `latest.json` and `latest.md`, and its plots beside them; the others
    there stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob(f"{name}.svg"), *folder.glob(f"{name}-*.svg")):
        old.unlink()
    for file, picture in taken.pictures(name).items():
        (folder / file).write_text(picture.svg())
    kept = folder / "latest.json"
    documents: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    documents[name] = taken.document(name)
    documents = {each: documents[each] for each in order if each in documents}
    kept.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    (folder / "latest.md").write_text(
        "# Results\n\nMedians; in parentheses the smallest and the largest of the rounds.\n\n"
        + "\n".join(document["markdown"] for document in documents.values())
    )
