"""YAML text → plain data and the line of each piece of it.

All scalars stay text: what `5000`, `0123`, `1:30` or `no` means is decided by the key they stand
at, not by YAML 1.1's guesses. Of YAML only what a configuration needs is read: no tags, anchors
or aliases, one document, bounded depth and size. So no document costs more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..frozen import dataclass
from .places import masked
from .problems import ConfigError, Problem

MAX_LENGTH = 256 * 1024  # characters; the largest sensible configuration is a tenth of it
MAX_DEPTH = 12  # twice what the keys need

_NULL = "tag:yaml.org,2002:null"

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """`data` is None, text, lists and dicts; `problems` are those that leave the rest readable."""

    source: str
    data: Any
    lines: Mapping[Location, int]
    problems: tuple[Problem, ...]

    def problem(self, location: Location, found: str, write: str) -> Problem:
        """A problem there, or at the nearest thing around it that is in the file."""
        nearest = location
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        return Problem(self.source, self.lines.get(nearest, 1), spelled(location), found, write)


def spelled(location: Location) -> str:
    """`registries.docker.io.endpoints[0].url`: a location as messages show it."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{_shown_key(step)}"
    return path.removeprefix(".")


def _shown_key(key: str) -> str:
    """A key as it stands when it looks like one; else it may be a URL with a login in it."""
    return key if re.fullmatch(r"[\w.:-]{1,80}", key, re.ASCII) else masked(key)


def read_document(text: str, source: str) -> Document:
    """Raises ConfigError when this is not YAML, or uses more of YAML than is read here."""
    if len(text) > MAX_LENGTH:
        kib = MAX_LENGTH // 1024
        raise ConfigError(
            [Problem(source, None, "", f"more than {kib} KiB", "a configuration smaller than that")]
        )
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = Problem(source, line, "", "an unprintable character", "plain UTF-8 text")
        raise ConfigError([problem]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(error, source)]) from None
    if loader.refused:
        # What these stand for is unknown, so the keys around them cannot be judged.
        raise ConfigError(
            [Problem(source, line, "", found, write) for line, found, write in loader.refused]
        )
    return _Walk(source).document(root)


class _Loader(yaml.SafeLoader):
    """SafeLoader's composer (it makes nodes, never objects), with the refusals noted."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[int, str, str]] = []
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # The names of anchors, aliases and tags are not shown: `password: *hunter2` is an alias.
        parser: Any = self  # the stubs leave these methods untyped
        event = parser.peek_event()
        mark = event.start_mark
        line = mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            parser.get_event()
            self.refused.append((line, "an alias ('*')", _WRITTEN_OUT))
            return yaml.ScalarNode(_NULL, "", mark, mark)
        if event.anchor is not None:
            event.anchor = None
            self.refused.append((line, "an anchor ('&')", _WRITTEN_OUT))
        if event.tag is not None:
            event.tag = None
            self.refused.append((line, "a YAML tag ('!')", "the value alone, in quotes if need be"))
        if self._depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_WRITTEN_OUT = "the value itself wherever it is needed, in quotes if it begins with that sign"
_TOO_DEEP = "too deep"

# PyYAML's words → ours. Its own are not shown: they quote the file, and are about YAML's grammar.
_SYNTAX = (
    (_TOO_DEEP, f"more than {MAX_DEPTH} levels", "the keys of the example configuration"),
    ("'\\t'", "a tab", "spaces: YAML is indented by spaces only"),
    ("but found another document", "a second document", "one document, with no '---' inside"),
    (
        "mapping values are not allowed",
        "a ': ' where no key can stand",
        "'key: value' with the indentation of its neighbours; a value with ': ' in it needs quotes",
    ),
    (
        "could not find expected ':'",
        "a line that is no 'key: value'",
        "a colon and a space after the key",
    ),
    (
        "while scanning a quoted scalar",
        "a quote that is never closed",
        "the closing quote",
    ),
    (
        "while parsing a flow",
        "a bracket that is never closed, or a missing comma",
        "'{key: value, key: value}' or '[item, item]'",
    ),
    (
        "expected <block end>",
        "a line that is indented unlike its neighbours",
        "keys of one section with the same indentation, items of a list with '- ' before each",
    ),
    ("cannot start any token", "a value that begins with a sign of YAML's own", "it in quotes"),
)


def _syntax(error: yaml.MarkedYAMLError, source: str) -> Problem:
    said = f"{error.context}: {error.problem}"
    found, write = next(
        ((found, write) for words, found, write in _SYNTAX if words in said),
        ("text that is not YAML", "'key: value' lines, as in the example configuration"),
    )
    mark = error.problem_mark
    if said.startswith(("while scanning a quoted", "while scanning a simple key")):
        mark = error.context_mark or mark  # where it began; the other mark is where YAML gave up
    return Problem(source, mark.line + 1 if mark else None, "", found, write)


class _Walk:
    """One walk over the nodes: data, lines, and the keys that stand twice."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[Location, int] = {}
        self._problems: list[Problem] = []

    def document(self, root: yaml.Node | None) -> Document:
        data = None if root is None else self._plain(root, (), root.start_mark.line + 1)
        return Document(self._source, data, self._lines, tuple(self._problems))

    def _plain(self, node: yaml.Node, location: Location, line: int) -> Any:
        self._lines[location] = line
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._plain(item, (*location, index), item.start_mark.line + 1)
                for index, item in enumerate(node.value)
            ]
        return None if node.tag == _NULL else node.value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._say(location, line, "a key that is no text", "'key: value'")
            elif key.value in plain:
                place = (*location, key.value)
                write = f"it once: it stands at line {self._lines[place]} already"
                self._say(place, line, "this key twice", write)
            else:
                place = (*location, key.value)
                plain[key.value] = self._plain(value, place, line)
        return plain

    def _say(self, location: Location, line: int, found: str, write: str) -> None:
        self._problems.append(Problem(self._source, line, spelled(location), found, write))
