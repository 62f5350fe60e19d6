"""Traces: which step of an answer took how long, for whoever collects them.

The current span goes along with the task in a context variable, and with every task that is begun
in it, so that no signature is changed for the sake of looking on: nothing that the mirror does
depends on it. Where there is none (tracing is off, or this request was not drawn), a step costs one
look-up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Protocol

from ..frozen import dataclass

Attribute = str | int | float | bool


class Span(Protocol):
    """One step. Never raises."""

    @property
    def trace_id(self) -> str:
        """32 hex digits."""

    def child(self, name: str, attributes: Mapping[str, Attribute], *, is_client: bool) -> Span:
        """A step of this one. `is_client`: something is asked of another server in it."""

    def set(self, attributes: Mapping[str, Attribute]) -> None: ...

    def end(self, error: str = "") -> None:
        """It is over. `error`: why it failed, in a word."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as it may be traced. `traceparent`: the client's header, as it came. `client`:
    see RequestContext. `name` is the span's."""

    name: str
    traceparent: str
    client: str
    registry: str
    repository: str


class Tracer(Protocol):
    def request(self, asked: Asked) -> Span | None:
        """The span of this request, which begins now. None: it is not traced."""


_current: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The step that is under way."""
    return _current.get()


def enter(span: Span | None) -> None:
    """From now on this is the current span, of this task and of those that it begins."""
    _current.set(span)


def waits(name: str) -> Callable[[], None]:
    """Something is waited for, from now on until what this returns is called, for the first
    time."""
    parent = _current.get()
    step = None if parent is None else parent.child(name, {}, is_client=False)

    def is_over() -> None:
        nonlocal step
        if step is not None:
            step.end()
            step = None

    return is_over


_UNTRACED = contextlib.nullcontext(None)


def span(
    name: str, attributes: Mapping[str, Attribute], *, is_client: bool = False
) -> contextlib.AbstractContextManager[Span | None]:
    """A step of what is under way, if that is traced. An error that leaves it is the step's."""
    parent = _current.get()
    if parent is None:
        return _UNTRACED
    return _step(parent, name, attributes, is_client=is_client)


@contextlib.contextmanager
def _step(
    parent: Span, name: str, attributes: Mapping[str, Attribute], *, is_client: bool
) -> Iterator[Span]:
    step = parent.child(name, attributes, is_client=is_client)
    token = _current.set(step)
    try:
        yield step
    except BaseException as error:
        step.end(type(error).__name__)
        raise
    else:
        step.end()
    finally:
        _current.reset(token)
