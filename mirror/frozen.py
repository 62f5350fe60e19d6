"""`@dataclass(frozen=True, slots=True)`, as of the standard library, made in a tenth of the time.

The standard library compiles six methods for each class, which took a fifth of the time that the
mirror needs to start. Here a class has its slots, and nothing else is made before it is used:
`__init__`, `__eq__` and `__hash__` are compiled, and its fields read by the standard library, when
they are first asked for. The others are the same functions for all classes. For type checkers it is
the standard library's own. A class that has an `InitVar` uses the standard library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, **how: bool) -> Any:
        """The standard library's for classes that are not frozen, or have no slots."""
        if not (frozen and slots):
            return dataclasses.dataclass(frozen=frozen, slots=slots, **how)
        return _of_values if how.get("eq", True) else _of_identity


def _of_values(made: Any) -> Any:
    own = vars(made)
    compared, hashed = "__eq__" not in own, own.get("__hash__") is None
    made = _of_identity(made)
    if compared:
        _compare_by_values(made)
    if hashed:
        _hash_by_values(made)
    return made


def _of_identity(made: Any) -> Any:
    own = dict(vars(made))
    annotations = own.get("__annotations__", {})
    names = [name for name, kind in annotations.items() if not kind.startswith("ClassVar")]
    inherited = {slot for base in made.__mro__[1:-1] for slot in vars(base).get("__slots__", ())}
    # With words: the standard library writes a signature, which takes long, where there are none.
    own["__doc__"] = words = own.get("__doc__") or made.__name__
    shape = {"__module__": made.__module__, "__annotations__": annotations, "__doc__": words}
    shape |= {name: own.pop(name) for name in names if name in own}
    own.pop("__dict__", None)
    own.pop("__weakref__", None)
    own |= {
        "__slots__": tuple(name for name in names if name not in inherited),
        "__dataclass_fields__": _Later("__dataclass_fields__", lambda of: _fields(of, shape)),
        "__dataclass_params__": _PARAMETERS,
        "__match_args__": _Later("__match_args__", _match_args),
        "__setattr__": _refuse_to_set,
        "__delattr__": _refuse_to_delete,
    }
    own.setdefault("__repr__", _repr)
    if "__getstate__" not in own:
        own |= {"__getstate__": _getstate, "__setstate__": _setstate}
    name, is_made_here = made.__qualname__, "__init__" not in own
    made = type(made)(made.__name__, made.__bases__, own)
    made.__qualname__ = name
    if is_made_here:
        _init_by_fields(made)
    return made


_PARAMETERS = vars(dataclasses.dataclass(init=False, repr=False, eq=False)(type("_", (), {})))[
    "__dataclass_params__"
]


class _Later:
    """An attribute of a class that is made when it is first asked for."""

    __slots__ = ("_make", "_name", "_of")

    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        self._name = name
        self._make = make

    def __set_name__(self, of: Any, _: str) -> None:
        self._of = of

    def __get__(self, _: object, asked: object = None) -> Any:
        made = self._make(self._of)
        setattr(self._of, self._name, made)
        return made


def _fields(made: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """By their names: those of its bases, then those that a class of this shape has."""
    fields: dict[str, Any] = {}
    for base in made.__mro__[-1:0:-1]:
        fields |= getattr(base, "__dataclass_fields__", {})
    read: Any = type(made.__name__, (), shape)
    read = dataclasses.dataclass(init=False, repr=False, eq=False)(read)
    return fields | {field.name: field for field in dataclasses.fields(read)}


def _match_args(made: Any) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(made) if each.init and not each.kw_only)


def _init_by_fields(made: Any) -> None:
    def __init__(self: object, *given: object, **named: object) -> None:
        made.__init__ = _init(made, dataclasses.fields(made))
        made.__init__(self, *given, **named)

    made.__init__ = __init__


def _init(made: Any, fields: tuple[dataclasses.Field[Any], ...]) -> Any:
    """Sets slots by their descriptors, as `object.__setattr__` would after a look for each name."""
    known: dict[str, Any] = {"_none": dataclasses.MISSING}
    positional, named, lines = ["self"], list[str](), list[str]()
    for each in fields:
        name = each.name
        known[f"_set_{name}"] = getattr(made, name).__set__
        value, parameter = name, name
        if each.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = each.default_factory
            parameter += "=_none"
            value = f"_make_{name}()"
            if each.init:
                value += f" if {name} is _none else {name}"
        elif each.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = each.default
            parameter += f"=_default_{name}"
            value = name if each.init else f"_default_{name}"
        elif not each.init:
            continue
        if each.init:
            (named if each.kw_only else positional).append(parameter)
        lines.append(f"    _set_{name}(self, {value})")
    if hasattr(made, "__post_init__"):
        lines.append("    self.__post_init__()")
    taken = ", ".join([*positional, *(["*", *named] if named else ())])
    text = f"def __init__({taken}):\n" + "\n".join(lines or ["    pass"])
    return _compiled(made, "__init__", text, known)


def _compare_by_values(made: Any) -> None:
    def __eq__(self: object, other: object) -> Any:
        names = [each.name for each in dataclasses.fields(made) if each.compare]
        own, others = (_tuple(names, of) for of in ("self", "other"))
        text = (
            "def __eq__(self, other):\n"
            "    if other.__class__ is not self.__class__:\n"
            "        return NotImplemented\n"
            f"    return {own} == {others}"
        )
        made.__eq__ = _compiled(made, "__eq__", text, {})
        return made.__eq__(self, other)

    made.__eq__ = __eq__


def _hash_by_values(made: Any) -> None:
    def __hash__(self: object) -> Any:
        fields = dataclasses.fields(made)
        hashed = [each for each in fields if (each.compare if each.hash is None else each.hash)]
        of_all = _tuple([each.name for each in hashed], "self")
        text = f"def __hash__(self):\n    return hash({of_all})"
        made.__hash__ = _compiled(made, "__hash__", text, {})
        return made.__hash__(self)

    made.__hash__ = __hash__


def _tuple(names: list[str], of: str) -> str:
    return "(" + "".join(f"{of}.{name}, " for name in names) + ")"


def _compiled(made: Any, name: str, text: str, known: dict[str, Any]) -> Any:
    known["__name__"] = made.__module__
    exec(text, known)  # noqa: S102 - as the standard library does
    function = known.pop(name)
    function.__qualname__ = f"{made.__qualname__}.{name}"
    return function


@recursive_repr()
def _repr(self: Any) -> str:
    told = (each.name for each in dataclasses.fields(self) if each.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
    return f"{self.__class__.__qualname__}({values})"


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    if name in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _refuse_to_delete(self: Any, name: str) -> None:
    if name in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
