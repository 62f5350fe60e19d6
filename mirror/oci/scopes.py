"""What a token is asked for: the scopes of Docker's token specification, and which of them may be
asked for because a registry named them.

A scope is `type:name:actions`, such as `repository:library/redis:pull`; several are joined by
spaces. A name may hold colons, so the type ends at the first one and the actions begin behind the
last. Some registries name a single word (`aws`, `*`), which says nothing of what it permits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .reference import is_name

MOST_ASKED = 100
"""Repositories that one token may be for; a push that mounts from each asks for all of them."""

_MOST_ACTIONS = 16
_LONGEST = 2048  # characters of a URL that they may take together; what is beyond is left out
_MOST_NAMED = 64
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# Names of actions that change nothing: `pull` is the specification's; Azure has `metadata_read`,
# `deleted_read`. Others do more than read, as `push` and `delete` do, or may do so for all that is
# known. Those that permit are listed, not those that forbid: the next vendor's word for writing is
# not known today.
_READING = re.compile(r"pull|list|read|[a-z]+(?:[_/.-][a-z]+)*[_/.-]read")

CATALOG = "registry:catalog"
"""What lists all repositories, as a scope names it; no repository's name has a colon."""

CATALOG_ACTIONS = ("*", "search")
"""What clients ask to do with it: `*` for /v2/_catalog, `search` for `docker search`."""


def pull_of(repository: str) -> str:
    """The scope for reading this repository."""
    return f"repository:{repository}:pull"


def scope_of(repository: str, actions: Iterable[str]) -> str:
    """The scope for these actions in this repository."""
    return f"repository:{repository}:{','.join(actions)}"


def scope_of_mount(repository: str, source: str) -> str:
    """The scopes for a push that takes a blob from another repository.

    >>> scope_of_mount("team/app", "team/base")
    'repository:team/app:pull,push repository:team/base:pull'
    """
    return f"{scope_of(repository, ('pull', 'push'))} {scope_of(source, ('pull',))}"


def asked_scopes(texts: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """What a client asks a token for: by a repository's name, or CATALOG, what it wants to do
    there. `texts`: the values of its `scope` parameters, each of one scope or several. What is no
    scope of these is left out, and so is what is beyond MOST_ASKED: the token is then not for it.
    """
    found: dict[str, set[str]] = {}
    for text in texts:
        for scope in text.split(maxsplit=MOST_ASKED)[:MOST_ASKED]:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if f"{kind}:{name}" == CATALOG:
                name = CATALOG
            elif kind != "repository" or not is_name(name):
                continue
            if name in found or len(found) < MOST_ASKED:
                words = actions.split(",", _MOST_ACTIONS)[:_MOST_ACTIONS]
                found.setdefault(name, set()).update(word for word in words if word)
    return {name: frozenset(actions) for name, actions in found.items()}


def reading(named: str, opaque: bool) -> str:
    """Of the scopes that a challenge names, those that permit reading alone; "" when there are
    none. The registry gets the token that is asked for, so with a login of the mirror's, a token
    that may do more would let a registry that was broken into do it. `opaque`: single words may be
    asked for as well, which is for those who show no login: anybody may have such a token.
    """
    found: list[str] = []
    left = _LONGEST
    for scope in named.split(maxsplit=_MOST_NAMED)[:_MOST_NAMED]:
        kept = _reading_part(scope) if ":" in scope else scope if opaque else ""
        if kept and kept not in found and len(kept) < left and _VISIBLE.fullmatch(kept):
            found.append(kept)
            left -= len(kept) + 1
    return " ".join(found)


def _reading_part(scope: str) -> str:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    is_repository = re.fullmatch(r"repository(?:\([a-z]+\))?", kind, re.IGNORECASE)
    kept: list[str] = []
    for action in actions.split(",", _MOST_NAMED)[:_MOST_NAMED]:
        # All actions are those of reading too, in a repository; of a registry they are not known.
        action = "pull" if action == "*" and is_repository else action
        if _READING.fullmatch(action) and action not in kept:
            kept.append(action)
    return f"{kind}:{name}:{','.join(kept)}" if kind and name and kept else ""
