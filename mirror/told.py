"""What another process has told as JSON → the frozen classes that it was made of.

Only what such classes have of it: their fields, in lists and by keys, numbers, words, and None.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_Read = Callable[[Any], Any]


def read_as(kind: type[T], told: object) -> T:
    """Fields that the class has not are left out: another version may have told them. Raises
    ValueError for what is none."""
    of: Any = kind
    found: T = _reader(of)(told)
    return found


@cache
def _reader(kind: Any) -> _Read:
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _fields(kind)
    if origin is Sequence:
        return _items(_reader(arguments[0]))
    if origin is Mapping:
        return _keys(*map(_reader, arguments))
    if origin in (Union, types.UnionType):
        return _first(*map(_reader, arguments))
    if origin is Literal:
        return _one_of(arguments)
    return _plain(kind)


def _fields(kind: Any) -> _Read:
    hints = get_type_hints(kind)
    wanted = {each.name: _reader(hints[each.name]) for each in dataclasses.fields(kind)}

    def read(told: Any) -> Any:
        if not isinstance(told, dict):
            raise ValueError(f"no {kind.__name__}")
        given = {name: read(told[name]) for name, read in wanted.items() if name in told}
        try:
            return kind(**given)
        except TypeError as error:  # one is missing
            raise ValueError(str(error)) from None

    return read


def _items(read_one: _Read) -> _Read:
    def read(told: Any) -> Any:
        if not isinstance(told, list | tuple):
            raise ValueError("no list")
        return [read_one(each) for each in told]

    return read


def _keys(read_key: _Read, read_value: _Read) -> _Read:
    def read(told: Any) -> Any:
        if not isinstance(told, dict):
            raise ValueError("no keys and values")
        return {read_key(key): read_value(value) for key, value in told.items()}

    return read


def _first(*reads: _Read) -> _Read:
    def read(told: Any) -> Any:
        for one in reads:
            try:
                return one(told)
            except ValueError:
                continue
        raise ValueError("none of what it may be")

    return read


def _one_of(words: Sequence[object]) -> _Read:
    def read(told: Any) -> Any:
        if told not in words:
            raise ValueError("a word that is not known")
        return told

    return read


def _plain(kind: Any) -> _Read:
    def read(told: Any) -> Any:
        if kind is Any or (isinstance(told, kind) and not (kind is int and told is True)):
            return told
        if kind is float and isinstance(told, int):
            return float(told)
        if kind is int and isinstance(told, str) and told.isdecimal():  # a key
            return int(told)
        raise ValueError(f"no {kind.__name__}")

    return read
