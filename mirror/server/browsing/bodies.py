"""Queries, forms and JSON bodies, read strictly. All raise Refused, with words for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from .failures import Refused


def whole_number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    given = query.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise _invalid(f"{name} is a whole number")
    if not least <= int(given) <= most:
        raise _invalid(f"{name} is from {least} to {most}")
    return int(given)


def _invalid(words: str) -> Refused:
    return Refused(400, "INVALID", words)


async def form_of(request: web.BaseRequest) -> MultiMapping[Any]:
    try:
        return await request.post()
    except (ValueError, LookupError, AssertionError):  # what aiohttp finds wrong in a form
        raise _invalid("the body is no form") from None


_LARGEST = 1e18


class Body:
    """A JSON object whose keys are taken one by one; none may be left."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self._keys = keys

    @classmethod
    async def read(cls, request: web.BaseRequest) -> Body:
        try:
            found = json.loads(await request.read() or b"{}")
        except (ValueError, RecursionError):
            raise _invalid("the body is no JSON") from None
        if not isinstance(found, dict):
            raise _invalid("the body is a JSON object")
        return cls(found)

    def text(self, name: str, default: str | None = None) -> str:
        found = self._keys.pop(name, default)
        if not isinstance(found, str):
            raise _invalid(f"{name} is a text")
        return found

    def texts(self, name: str) -> Sequence[str]:
        found = self._keys.pop(name, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise _invalid(f"{name} is a list of texts")
        return found

    def number(self, name: str) -> float | None:
        found = self._keys.pop(name, None)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
            raise _invalid(f"{name} is a number")
        if found is not None and not -_LARGEST < found < _LARGEST:  # NaN neither
            raise _invalid(f"{name} is a number below {_LARGEST:g}")
        return found

    def yes_or_no(self, name: str) -> bool:
        found = self._keys.pop(name, False)
        if not isinstance(found, bool):
            raise _invalid(f"{name} is true or false")
        return found

    def has(self, name: str) -> bool:
        return name in self._keys

    def text_or_none(self, name: str) -> str | None:
        """None where it is not given."""
        return self.text(name) if name in self._keys else None

    def yes_no_or_none(self, name: str) -> bool | None:
        """None where it is not given."""
        return self.yes_or_no(name) if name in self._keys else None

    def objects(self, name: str) -> Sequence[Body]:
        found = self._keys.pop(name, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise _invalid(f"{name} is a list of objects")
        return [Body(each) for each in found]

    def end(self) -> None:
        if self._keys:
            raise _invalid(f"there is no {sorted(self._keys)[0][:80]!r} in this request's body")
