"""YAML of other programs (compose files, Kubernetes manifests) → plain data, and the line of each
text.

All scalars stay text, and no object is made of any tag. Anchors, aliases and merges are followed,
since compose files live by them: what an alias stands for is there once, however often it is named,
and what merges copy is bounded. So no document costs more than some seconds or some 100 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_BYTES = 16 << 20  # of one file: what `helm template` prints of the largest charts is a quarter
_MOST_VALUES = 1_000_000
_MOST_MERGED = 200_000
_DEEPEST = 64

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
_NOTHING = ("", "~", "null", "Null", "NULL")
_MERGE = "<<"


class NoYaml(Exception):
    """It cannot be read; the message says why. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Text(str):
    """A scalar, and the line at which it stands."""

    __slots__ = ("line",)
    line: int

    def __new__(cls, text: str, line: int) -> Text:
        found = super().__new__(cls, text)
        found.line = line
        return found


@dataclass(slots=True)
class _Open:
    """A mapping or list of which more comes. `key`: of the next value; `merged`: what `<<`
    names."""

    value: dict[str, Any] | list[Any]
    key: str | None = None
    has_key: bool = False
    merged: list[Any] = field(default_factory=list)


def read_documents(text: str) -> Iterator[Any]:
    """Each document's mappings, lists, Text and None. Raises NoYaml."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentEndEvent):
                yield reader.root
                reader = _Reader(reader.values, reader.merged)
            else:
                reader.take(event)
    except yaml.reader.ReaderError as error:
        raise NoYaml(text.count("\n", 0, error.position) + 1, "an unprintable character") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        if "{{" in text:
            raise NoYaml(
                line, "a template that was not rendered: pipe what helm template prints to `-`"
            ) from None
        raise NoYaml(line, f"no YAML ({error.problem or error.context})") from None


class _Reader:
    """One document, from its events."""

    def __init__(self, values: int = 0, merged: int = 0) -> None:
        self.root: Any = None
        self.values = values
        self.merged = merged
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                is_nothing = event.style is None and event.value in _NOTHING
                self._add(event, None if is_nothing else Text(event.value, _line(event)))
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise NoYaml(_line(event), "an alias ('*') of what stands nowhere before it")
                value = self._anchors[event.anchor]
                if any(value is one.value for one in self._open):
                    raise NoYaml(_line(event), "an alias ('*') of what it stands in")
                self._add(event, value)

    def _begin(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        if len(self._open) == _DEEPEST:
            raise NoYaml(_line(event), f"more than {_DEEPEST} levels")
        self._add(event, value)
        self._open.append(_Open(value))

    def _add(self, event: Any, value: Any) -> None:
        self.values += 1
        if self.values > _MOST_VALUES:
            raise NoYaml(_line(event), f"more than {_MOST_VALUES} values")
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self._anchors[event.anchor] = value
        if not self._open:
            self.root = value
            return
        around = self._open[-1]
        if isinstance(around.value, list):
            around.value.append(value)
        elif not around.has_key:
            around.key = str(value) if isinstance(value, Text) else None
            around.has_key = True
        else:
            if around.key == _MERGE:
                around.merged += value if isinstance(value, list) else [value]
            elif around.key is not None:
                around.value[around.key] = value
            around.has_key = False

    def _end(self, event: Any) -> None:
        """What a mapping says itself goes before what it merges, and that in its order."""
        ended = self._open.pop()
        if not isinstance(ended.value, dict):
            return
        for merged in ended.merged:
            if not isinstance(merged, dict):
                raise NoYaml(_line(event), "a merge ('<<') of what is no mapping")
            self.merged += len(merged)
            if self.merged > _MOST_MERGED:
                raise NoYaml(_line(event), f"merges ('<<') of more than {_MOST_MERGED} keys")
            for key, value in merged.items():
                ended.value.setdefault(key, value)


def _line(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line
