"""The images of a compose file, by the compose specification: variables, `extends`, `include`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

from ..frozen import dataclass
from .documents import Text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", "-", ":?", "?", ":+", "+")
_DEEPEST = 16  # of what extends another, and of values within values
_OWN = ("build", "never")  # values of pull_policy by which no registry is asked


class Unset(Exception):
    """A variable has no value, and no default; the message says what to write."""


@dataclass(frozen=True, slots=True)
class ServiceImage:
    """`line`: where the image stands, in `file`. `platform` None: the service names none."""

    service: str
    image: str
    platform: str | None
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Said:
    """Something about a service that is no image: why it is passed over, or (a `mistake`) cannot be
    read."""

    file: str
    line: int
    words: str
    is_mistake: bool = True


Load = Callable[[str, str], tuple[str, Any]]
"""The path of a file beside another, and what it holds: by the file that names it, and the name.
Raises Unset for one that cannot be read."""


def is_compose(document: Any) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(document, dict)
        and isinstance(document.get("services"), dict)
        and "apiVersion" not in document
    )


class ComposeFile:
    """Reads one file, and those that it extends."""

    def __init__(self, variables: Mapping[str, str], load: Load) -> None:
        self._variables = variables
        self._load = load

    def images(self, file: str, document: Any) -> Iterator[ServiceImage | Said]:
        for name, service in document["services"].items():
            if not isinstance(service, dict):
                continue
            try:
                yield self._of_service(file, document, name)
            except Unset as unset:
                yield Said(file, _line_of(service), f"{name}: {unset}")

    def _of_service(self, file: str, document: Any, name: str) -> ServiceImage | Said:
        service, place = self._extended(file, document, name, 0)
        line = _line_of(service)
        policy = self._text(service.get("pull_policy"))
        image = service.get("image")
        if not isinstance(image, Text):
            if "build" in service:
                return Said(place, line, f"{name}: it is built, from no image that is named", False)
            return Said(place, line, f"{name}: neither image nor build")
        if policy in _OWN:
            words = f"{name}: pull_policy {policy} asks no registry for {image}"
            return Said(place, line, words, False)
        text = self._text(image)
        if not text:
            raise Unset(f"its image {image} is empty")
        return ServiceImage(name, text, self._text(service.get("platform")) or None, place, line)

    def _extended(
        self, file: str, document: Any, name: str, depth: int
    ) -> tuple[dict[str, Any], str]:
        """The service with what it has from others, and the file in which its image stands."""
        services = document.get("services") if isinstance(document, dict) else None
        service = services.get(name) if isinstance(services, dict) else None
        if not isinstance(service, dict):
            raise Unset(f"there is no service {name} in {file}")
        extends = service.get("extends")
        if extends is None:
            return service, file
        if depth == _DEEPEST:
            raise Unset(f"more than {_DEEPEST} services extend each other")
        base_file, base, other = file, document, extends
        if isinstance(extends, dict):
            other = extends.get("service")
            if "file" in extends:
                base_file, base = self._load(file, self._text(extends["file"]))
        found, place = self._extended(base_file, base, self._text(other), depth + 1)
        return {**found, **service}, file if "image" in service else place

    def _text(self, value: Any) -> str:
        return interpolated(value, self._variables) if isinstance(value, Text) else ""


def interpolated(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """The text with its variables' values (compose-spec, "Interpolation"). Raises Unset.

    >>> interpolated("redis:${TAG:-7}", {})
    'redis:7'
    """
    if depth == _DEEPEST:
        raise Unset(f"more than {_DEEPEST} variables within each other")
    found, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        found.append(text[at:dollar])
        at = dollar + 1
        if text.startswith("$", at):
            found.append("$")
            at += 1
        elif text.startswith("{", at):
            end = _closing(text, at)
            found.append(_value(text[at + 1 : end], variables, depth))
            at = end + 1
        elif name := _NAME.match(text, at):
            found.append(_value(name[0], variables, depth))
            at = name.end()
        else:
            raise Unset(f"a $ in {text} that begins no variable: write $$ for the sign itself")
    found.append(text[at:])
    return "".join(found)


def _closing(text: str, begin: int) -> int:
    open_ones = 0
    for at in range(begin, len(text)):
        open_ones += {"{": 1, "}": -1}.get(text[at], 0)
        if not open_ones:
            return at
    raise Unset(f"${{ is never closed in {text}")


def _value(inside: str, variables: Mapping[str, str], depth: int) -> str:
    name = _NAME.match(inside)
    if name is None:
        raise Unset(f"${{{inside}}} names no variable")
    value, rest = variables.get(name[0]), inside[name.end() :]
    if not rest:
        if value is None:
            raise Unset(f"the variable {name[0]} is not set: set it, or write ${{{name[0]}:-…}}")
        return value
    operator = next((one for one in _OPERATORS if rest.startswith(one)), None)
    if operator is None:
        raise Unset(f"${{{inside}}} is no variable that compose knows")
    word, has_value = rest[len(operator) :], bool(value) if ":" in operator else value is not None
    if operator.endswith("+"):
        return interpolated(word, variables, depth + 1) if has_value else ""
    if has_value:
        return value or ""
    if operator.endswith("?"):
        raise Unset(f"the variable {name[0]} is not set: {word or 'it has to be'}")
    return interpolated(word, variables, depth + 1)


def _line_of(service: dict[str, Any]) -> int:
    """Where its image stands, or else the first text in it."""
    texts = (value for value in (service.get("image"), *service.values()))
    return next((value.line for value in texts if isinstance(value, Text)), 1)
