"""The runbook: whoever is woken finds what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
TEXT = (ROOT / "docs/runbook.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^### (\w+)\n(.*?)(?=^##|\Z)", TEXT))
PARTS = ("What it means.", "What clients see.", "How to look.", "What to do.")

# Told of one file or socket beside what has its own section, or harmless: the line says it all.
SAYS_IT_ALL = {
    "bounds_not_noted_for_commands",
    "growing_file_cannot_be_read",
    "note_cannot_be_removed",
    "partial_cannot_be_removed",
    "partial_not_kept",
    "policy_not_closed",
    "prefetch_failed",
    "store_is_not_locked",
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_a_section_that_says_what_to_do(alert: str) -> None:
    page, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == ("docs/runbook.md", alert.lower())
    section = SECTIONS[alert]
    at = [section.find(f"**{part}**") for part in PARTS]
    assert -1 not in at, PARTS[at.index(-1)]
    assert at == sorted(at)


def test_no_section_is_of_an_alert_that_there_is_not() -> None:
    assert {name for name in SECTIONS if name.startswith("RegistryMirror")} == set(ALERTS)


def errors() -> Iterator[tuple[str, str]]:
    """Where the program logs an error, and the event's name; "" where that is made at run time."""
    for path in sorted((ROOT / "mirror").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            logs = isinstance(node.func.value, ast.Name) and node.func.value.id in ("log", "_log")
            if logs and node.func.attr in ("error", "exception", "critical"):
                name = node.args[0] if node.args else None
                told = name.value if isinstance(name, ast.Constant) else ""
                yield f"{path.relative_to(ROOT)}:{node.lineno}", str(told)


def test_each_error_of_the_log_stands_in_the_runbook_or_says_it_all() -> None:
    told = dict(errors())
    assert len(told) > 30
    unexplained = {
        f"{at} {name}"
        for at, name in told.items()
        if name not in SAYS_IT_ALL and not re.search(rf"(?m)^### {name}$|`{name}`", TEXT)
    }
    assert unexplained == set()


def test_what_the_runbook_explains_is_still_logged() -> None:
    names = set(dict(errors()).values())
    explained = {name for name in SECTIONS if not name.startswith("RegistryMirror")}
    assert explained <= names
    assert names >= SAYS_IT_ALL
