"""What all sections of mirror.yaml have in common: keys with types, as each value is read.

`key: Annotated[Type, Read(function)] = default`, where the function makes of what is written what
is used, or raises Mistake. Sections, lists of something and mappings in a type are read themselves,
after what `Read` makes of them; all else is as `Read` gave it. What is wrong in any key is told of
all keys at once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from ..frozen import dataclass
from . import values
from .document import Location
from .problems import Mistake

S = TypeVar("S", bound="Section")

_NONE: Any = object()


@dataclass(frozen=True, slots=True)
class Read:
    """How a key's value is read."""

    by: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Unread:
    """What is wrong at a place, where no function has said it: a key that is `missing` or
    `unknown`, what is no `list`, or what is no `section`. `value`: what was written."""

    what: str
    value: object


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. `annotation`: its type without how it is read. `called`: its name in
    the file."""

    annotation: Any
    read: _Reader
    default: Any
    default_factory: Callable[[], Any] | None
    called: str

    @property
    def is_required(self) -> bool:
        return self.default is _NONE and self.default_factory is None


class Unreadable(ValueError):
    """All that is wrong in a section, each with its place below it."""

    def __init__(self, found: Sequence[tuple[Location, Mistake | Unread]]) -> None:
        super().__init__(f"{len(found)} mistakes in a section")
        self.found = found


def key(
    *,
    default: Any = _NONE,
    default_factory: Callable[[], Any] | None = None,
    alias: str | None = None,
) -> Any:
    """A key's default, where that is made anew each time or it has another name in the file."""
    return Key(None, _as_it_is, default, default_factory, alias or "")


_Found = list[tuple[Location, Mistake | Unread]]
_Reader = Callable[[Any, Location, _Found], Any]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key,))
class Section:
    """Frozen. Made of what is written, as text: raises Unreadable."""

    _fields: ClassVar[Mapping[str, Key]]

    def __init__(self, **written: Any) -> None:
        vars(self).update(vars(read_section(self.__class__, written)))

    @classmethod
    def fields(cls) -> Mapping[str, Key]:
        """By their names in Python. Typed out when they are first asked for."""
        if "_fields" not in vars(cls):
            hints = get_type_hints(cls, include_extras=True)
            cls._fields = {
                name: _key(name, hint, vars(cls).get(name, _NONE))
                for name, hint in hints.items()
                if get_origin(hint) is not ClassVar
            }
        return cls._fields

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Made of values that are read already."""
        made: Self = _made(cls, values)
        return made

    def but(self, values: Mapping[str, Any]) -> Self:
        """The same with these values, which are read already."""
        made = object.__new__(self.__class__)
        vars(made).update(vars(self), **values)
        vars(made)["_written"] = self.written | set(values)
        return made

    @property
    def written(self) -> frozenset[str]:
        """Names of the keys that somebody has written, whatever they say."""
        written: frozenset[str] = vars(self)["_written"]
        return written

    def _values(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in vars(self).items() if name != "_written")

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"{self.__class__.__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self.__class__.__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Section) or other.__class__ is not self.__class__:
            return NotImplemented
        return dict(self._values()) == dict(other._values())

    def __hash__(self) -> int:
        return hash((self.__class__, *(vars(self)[name] for name in self.fields())))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self._values())
        return f"{self.__class__.__name__}({told})"


def read_section(section: type[S], written: object) -> S:
    """Raises Unreadable."""
    found: _Found = []
    made: S = _section(section)(written, (), found)
    if found:
        raise Unreadable(found)
    return made


def _made(section: type[Any], given: Mapping[str, Any]) -> Any:
    made = object.__new__(section)
    held = vars(made)
    for name, each in section.fields().items():
        if name in given:
            held[name] = given[name]
        elif each.default_factory is not None:
            held[name] = each.default_factory()
        elif each.default is not _NONE:
            held[name] = each.default
    held["_written"] = frozenset(given)
    return made


def _key(name: str, hint: Any, default: Any) -> Key:
    annotation = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    given: Key = default if isinstance(default, Key) else key(default=default)
    called = given.called or name
    return Key(annotation, _reader(hint), given.default, given.default_factory, called)


def _reader(hint: Any) -> _Reader:
    """How what stands at a key of this type is read."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _reader(arguments[0])
        for mark in arguments[1:]:
            inner = _by(mark.by, inner)
        return inner
    if origin in (Union, types.UnionType):
        of = [each for each in arguments if each is not type(None)]
        return _or_none(_reader(of[0])) if len(of) == 1 else _as_it_is
    if origin is tuple:
        return _listed(_reader(arguments[0]))
    if origin is Mapping:
        return _mapped(*map(_reader, arguments))
    if isinstance(hint, type) and issubclass(hint, Section):
        return _section(hint)
    return _as_it_is


def _as_it_is(value: Any, place: Location, found: _Found) -> Any:
    return value


def _by(function: Callable[[Any], Any], then: _Reader) -> _Reader:
    def read(value: Any, place: Location, found: _Found) -> Any:
        try:
            value = function(value)
        except Mistake as mistake:
            found.append((place, mistake))
            return None
        except ValueError:
            found.append((place, Unread("section", value)))
            return None
        return then(value, place, found)

    return read


def _or_none(then: _Reader) -> _Reader:
    return lambda value, place, found: None if value is None else then(value, place, found)


def _listed(one: _Reader) -> _Reader:
    def read(value: Any, place: Location, found: _Found) -> Any:
        if not isinstance(value, list | tuple):
            found.append((place, Unread("list", value)))
            return ()
        return tuple([one(each, (*place, index), found) for index, each in enumerate(value)])

    return read


def _mapped(key: _Reader, one: _Reader) -> _Reader:
    def read(value: Any, place: Location, found: _Found) -> Any:
        if not isinstance(value, Mapping):
            found.append((place, Unread("section", value)))
            return {}
        return {
            key(name, (*place, name), found): one(each, (*place, name), found)
            for name, each in value.items()
        }

    return read


def _section(section: Any) -> _Reader:
    def read(value: Any, place: Location, found: _Found) -> Any:
        if isinstance(value, section):
            return value
        if not isinstance(value, dict):
            found.append((place, Unread("section", value)))
            return None
        keys, given, before = section.fields(), {}, len(found)
        for name, each in keys.items():
            called = each.called
            if called in value:
                given[name] = each.read(value[called], (*place, called), found)
            elif each.is_required:
                found.append(((*place, called), Unread("missing", value)))
        known = {each.called for each in keys.values()}
        found += [
            ((*place, called), Unread("unknown", given_value))
            for called, given_value in value.items()
            if called not in known
        ]
        return _made(section, given) if len(found) == before else None

    return read


Seconds = Annotated[float, Read(values.seconds)]


def or_empty(section: object) -> object:
    """A section whose keys are all commented out is as good as none."""
    return {} if section is None else section


def or_none_listed(section: object) -> object:
    """As `or_empty`, of a list."""
    return () if section is None else section
