"""Which path means what. A repository's name has slashes; `/-/`, which no name has, ends it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ....frozen import dataclass

_COMPONENT = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_KINDS = {
    "repository": rf"{_COMPONENT}(?:/{_COMPONENT})*",
    "name": r"[a-z0-9._-]{1,64}",
    "user": r"[a-z0-9._-]{1,64}",
    "organisation": r"[a-z0-9._-]{1,64}",
    "tag": r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
    "digest": r"[a-z0-9]{1,16}:[a-f0-9]{32,128}",
    "reference": r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,160}",
    "id": r"[A-Za-z0-9_-]{1,64}",
}

Answer = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as `/r/{repository}/-/tags/{tag}`. `again`: the page that is shown once more, with
    words, when this was not done."""

    method: str
    path: str
    answer: Answer
    again: Answer | None = None


class Routes:
    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(re.compile(_pattern(each.path), re.ASCII), each) for each in routes]

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | frozenset[str]:
        """The route and the names in the path; else the methods that the path has, none for a path
        that means nothing. HEAD is as GET."""
        asked = "GET" if method == "HEAD" else method
        others = set()
        for pattern, route in self._routes:
            if found := pattern.fullmatch(path):
                if route.method == asked:
                    return route, found.groupdict()
                others.add(route.method)
        return frozenset(others)


def _pattern(path: str) -> str:
    """
    >>> bool(re.fullmatch(_pattern("/r/{repository}/-/settings"), "/r/acme/app/-/settings"))
    True
    >>> re.fullmatch(_pattern("/r/{repository}"), "/r/acme/app/-/settings")
    """
    parts = re.split(r"\{(\w+)\}", path)
    return "".join(
        f"(?P<{part}>{_KINDS[part]})" if place % 2 else re.escape(part)
        for place, part in enumerate(parts)
    )
