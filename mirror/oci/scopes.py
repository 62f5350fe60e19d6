"""What a token is asked for: the scopes of Docker's token specification, and which of them may be
asked for because a registry named them.

A scope is `type:name:actions`, such as `repository:library/redis:pull`; several are joined by
spaces. A name may hold colons, so the type ends at the first one and the actions begin behind the
last. Some registries name a single word (`aws`, `*`), which says nothing of what it permits.
"""

from __future__ import annotations

import re

_LONGEST = 2048  # characters of a URL that they may take together; what is beyond is left out
_MOST_NAMED = 64
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# Names of actions that change nothing: `pull` is the specification's; Azure has `metadata_read`,
# `deleted_read`. Others do more than read, as `push` and `delete` do, or may do so for all that is
# known. Those that permit are listed, not those that forbid: the next vendor's word for writing is
# not known today.
_READING = re.compile(r"pull|list|read|[a-z]+(?:[_/.-][a-z]+)*[_/.-]read")


def pull_of(repository: str) -> str:
    """The scope for reading this repository."""
    return f"repository:{repository}:pull"


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
