"""Writes docs/reference.md from the code: `make reference`. tests/test_reference.py holds that the
page is what this would write."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from mirror.cli.program import app
from mirror.config.model import Config, Section
from mirror.config.reloading import NEEDS_RESTART
from mirror.config.section import Key
from mirror.events import Events
from mirror.metrics import Metrics
from mirror.oci import errors

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference.md"

_LEVELS = ("debug", "info", "warning", "error", "exception")
_COMMENT = re.compile(r" *# (\S.*)")  # more spaces are those of a key that is commented out
_KEY = re.compile(r"#?( *)(?:- )?\{?([a-z0-9_.]+):(?: |$)")


def reference() -> str:
    parts = (
        "# Reference\n\n"
        "Written from the code by `make reference`: the configuration, commands, metrics, the log "
        "and errors.\n[The runbook](runbook.md) says what to do about them.\n",
        _configuration(),
        _commands(),
        _metrics(),
        _log(),
        _errors(),
    )
    return "\n".join(parts)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


# The configuration.


def _configuration() -> str:
    words, written = _words_of_keys(), yaml.safe_load((ROOT / "mirror.yaml").read_text())
    rows = (
        (
            f"`{key}`",
            _default(field, _at(written, key)),
            _counts_from(key),
            words.get(_plain_key(key), ""),
        )
        for key, field in _keys(Config, "", set())
    )
    heads = ("key", "default", "counts from", "in the words of mirror.yaml")
    return (
        "## Configuration\n\n[mirror.yaml](../mirror.yaml) has every key with its default. "
        "`<name>` is a registry's, `[]` one of\na list. A registry has the keys of its endpoints' "
        "`credentials`, `proxy` and `client`, too, for all of\nthem.\n\n" + _table(heads, rows)
    )


def _keys(section: type[Section], above: str, met: set[type[Section]]) -> Iterator[tuple[str, Key]]:
    """Each key with its field; those of a section that stands in several places, once."""
    met.add(section)
    for field in section.fields().values():
        key = f"{above}{field.called}"
        yield key, field
        for inside, ending in _sections_in(field.annotation):
            if inside not in met:
                yield from _keys(inside, f"{key}{ending}.", met)


def _sections_in(annotation: Any, ending: str = "") -> Iterator[tuple[type[Section], str]]:
    """The sections that a key may have, and what leads to them from it."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, ending
    elif get_origin(annotation) is tuple:
        yield from _sections_in(get_args(annotation)[0], ending + "[]")
    elif get_origin(annotation) is Mapping:
        yield from _sections_in(get_args(annotation)[1], ending + ".<name>")
    else:
        for inner in get_args(annotation):
            yield from _sections_in(inner, ending)


def _default(field: Key, written: object) -> str:
    """As mirror.yaml writes it, or else as the model has it."""
    if field.is_required:
        return "required"
    value = field.default if written is None else written
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str | int | float):
        return f"`{value}`"
    return ""


def _at(document: Any, key: str) -> Any:
    """What mirror.yaml has for a key, None where it has nothing; of registries, Docker Hub's."""
    for part in key.replace("[]", "").split("."):
        if isinstance(document, list):
            document = document[0]
        name = "docker.io" if part == "<name>" else part
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


def _counts_from(key: str) -> str:
    fixed = any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in NEEDS_RESTART)
    return "a restart" if fixed else "a reload"


def _plain_key(key: str) -> str:
    return re.sub(r"(\[\]|\.<name>)", "", key)


def _words_of_keys() -> Mapping[str, str]:
    """What mirror.yaml says above each key, by the key's path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    is_new = True
    for line in (ROOT / "mirror.yaml").read_text().splitlines():
        if words := _COMMENT.fullmatch(line):
            comment, is_new = [*([] if is_new else comment), words[1]], False
        elif key := _KEY.match(line):
            depth = len(key[1]) + ("- " in line[: key.end()]) * 2
            path = [*(one for one in path if one[0] < depth), (depth, key[2])]
            names = [name for _, name in path if "." not in name]
            found.setdefault(".".join(names), " ".join(comment))
            is_new = True  # until there are other words, these are of the next key, too
        elif not line.strip():
            comment = []
    return found


# Commands.


def _commands() -> str:
    parts = ["## Commands\n\nData goes to standard output, words to standard error.\n"]
    # Typer carries a Click of its own, or not, by its version: hence no types.
    parts += _below("registry-mirror", typer.main.get_command(app))
    return "\n".join(parts)


def _below(name: str, group: Any) -> Iterator[str]:
    for below, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield f"### {name} {below}\n\n{_plain(command.help)}\n"
            yield from _below(f"{name} {below}", command)
        elif not command.hidden:
            yield _command(f"{name} {below}", command)


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    text = f"### {name}\n\n    {name} {usage}\n\n{_plain(command.help)}\n"
    if command.epilog:
        lines = command.epilog.strip().splitlines()
        text += "\n" + "".join(f"    {line}".rstrip() + "\n" for line in lines)
    records = (
        one.get_help_record(context) for one in command.get_params(context) if one.name != "help"
    )
    rows = [(f"`{_plain(option)}`", _plain(words)) for option, words in filter(None, records)]
    return text + "\n" + _table(("option", "meaning"), iter(rows)) if rows else text


def _plain(words: str | None) -> str:
    return " ".join((words or "").split())


# Metrics.


def _metrics() -> str:
    made = Metrics(Events())._make.made
    rows = (
        (
            f"`{_exposed(name, metric)}`",
            metric._type,
            " ".join(metric._labelnames),
            metric._documentation,
        )
        for name, metric in sorted(made.items())
        if isinstance(metric, MetricWrapperBase)
    )
    return "## Metrics\n\n" + _table(("name", "type", "labels", "meaning"), rows)


def _exposed(name: str, metric: MetricWrapperBase) -> str:
    return f"{name}_total" if metric._type == "counter" else name


# The log.


def _log() -> str:
    events: dict[str, tuple[set[str], set[str]]] = {}
    for file in sorted((ROOT / "mirror").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            found = _logged(node)
            if found is not None:
                level, event, fields = found
                levels, all_fields = events.setdefault(event, (set(), set()))
                levels.add("error" if level == "exception" else level)
                all_fields.update(fields)
    rows = (
        (f"`{event}`", ", ".join(sorted(levels)), " ".join(f"`{one}`" for one in sorted(fields)))
        for event, (levels, fields) in sorted(events.items())
    )
    return (
        "## Log\n\nOne JSON object a line where standard error is no terminal. Besides the fields "
        "below each has `timestamp`,\n`level` and `event`.\n\n"
        + _table(("event", "level", "fields"), rows)
    )


def _logged(node: ast.AST) -> tuple[str, str, Sequence[str]] | None:
    """Level, event and fields of a call such as log.error("worker_died", pid=1)."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level),
            args=[ast.Constant(value=str(event)), *_],
            keywords=keywords,
        ) if level in _LEVELS:
            return level, event, [one.arg for one in keywords if one.arg not in (None, "exc_info")]
    return None


# Errors.


def _errors() -> str:
    rows = (
        (kind.__name__, f"`{kind.code}`", str(kind.status), _plain(kind.__doc__))
        for kind in _kinds(errors.RegistryError)
        if kind.__doc__ and kind.__doc__ != errors.RegistryError.__doc__
    )
    return (
        "## Errors\n\nWhat clients are told: the code in the body, and the status, which may be "
        "another for a client that\nis better served by it (`mirror/server/v2/failures.py`).\n\n"
        + _table(("kind", "code", "status", "when"), rows)
    )


def _kinds(kind: type[errors.RegistryError]) -> Iterator[type[errors.RegistryError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _kinds(below)


if __name__ == "__main__":
    PAGE.write_text(reference())
    sys.stdout.write(f"wrote {PAGE}\n")
