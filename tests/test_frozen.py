"""Frozen classes are what the standard library makes of the same words."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from mirror import frozen


def _made(dataclass: Callable[..., Any]) -> type[Any]:
    @dataclass(frozen=True, slots=True)
    class Value:
        name: str
        count: int = 3
        parts: list[str] = field(default_factory=list, hash=False)
        told: str = field(default="", compare=False, repr=False)
        seen: list[int] = field(default_factory=list, init=False, compare=False)
        only: int = field(default=1, kw_only=True)

        def __post_init__(self) -> None:
            self.seen.append(self.count)

    return Value


OURS, THEIRS = _made(frozen.dataclass), _made(dataclasses.dataclass)


def test_values_are_told_compared_and_hashed_alike() -> None:
    for more in ({}, {"count": 4}, {"parts": ["a"]}, {"told": "b"}, {"only": 2}):
        ours, theirs = OURS("x", **more), THEIRS("x", **more)
        assert repr(ours) == repr(theirs)
        assert (ours == OURS("x")) == (theirs == THEIRS("x"))
        assert hash(ours) == hash(theirs)
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
        assert repr(dataclasses.replace(ours, name="y")) == repr(
            dataclasses.replace(theirs, name="y")
        )
    assert OURS("x") != THEIRS("x")


def test_fields_are_neither_set_nor_deleted() -> None:
    value = OURS("x")
    with pytest.raises(FrozenInstanceError):
        value.name = "y"
    with pytest.raises(FrozenInstanceError):
        del value.name
    with pytest.raises(AttributeError):
        value.other = 1
    assert value.name == "x"


def test_arguments_are_taken_alike() -> None:
    for made in (OURS, THEIRS):
        with pytest.raises(TypeError):
            made()
        with pytest.raises(TypeError):
            made("x", 1, [], "t", 1)


@frozen.dataclass(frozen=True, slots=True)
class Sent:
    number: int
    words: tuple[str, ...] = ()


@frozen.dataclass(frozen=True, slots=True)
class SentOn(Sent):
    last: str = "end"


def test_values_are_copied_and_sent_to_other_processes() -> None:
    for value in (Sent(1, ("a",)), SentOn(2, ("b",), "c")):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.deepcopy(value) == value
    assert SentOn(1) != Sent(1)


@frozen.dataclass(frozen=True, slots=True)
class Own:
    value: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own)

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "own"


@frozen.dataclass(frozen=True, slots=True, eq=False)
class Same:
    value: int


def test_what_a_class_states_itself_is_left() -> None:
    assert (Own(1) == Own(2), hash(Own(1)), repr(Own(1))) == (True, 7, "own")
    assert Same(1) != Same(1)


def test_a_class_that_may_change_is_the_standard_librarys() -> None:
    @frozen.dataclass(slots=True)
    class Changing:
        value: int

    changing = Changing(1)
    changing.value = 2
    assert changing == Changing(2)
