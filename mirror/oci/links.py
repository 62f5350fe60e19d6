"""What else a registry leads to: the Link header (RFC 8288), which pages of a list come with.

The header is a list, and each of its links may have a list of parameters:

    </v2/x/tags/list?last=7>; rel="next"; title="a, b", <https://docs.example>; rel=help
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What is longer is left out whole: cut, it might mean something else.
MAX_LINE = 65536
MAX_LINES = 64

# Linear, whatever comes: each repetition takes all it can and gives nothing back (`*+`), and ends
# where the next one of its kind may begin.
_SEPARATORS = re.compile(r"[ \t,]*+")
_TARGET = re.compile(r"<([^<>]*+)>")
_PARAMETER = re.compile(
    r"""[ \t]*+;[ \t]*+
    ([!#$%&'*+.^_`|~0-9A-Za-z-]*+)[ \t]*+  # a `token` (RFC 9110, 5.6.2); registries send `;` too
    (?:=[ \t]*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^",;<>\ \t]*+)))?+""",
    re.VERBOSE | re.DOTALL,
)
_REST_OF_LINK = re.compile(
    r"""[^",]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^",]*+)*+""", re.DOTALL
)  # up to a comma outside of quotes, or to a quote that never closes


def next_target(headers: Sequence[str]) -> str | None:
    """Where the first link of these Link lines leads whose relation is `next`; None without one.

    Never raises. The target is as it was written: it may be no URL. A link that cannot be parsed is
    left out.
    """
    for line in headers[:MAX_LINES]:
        if len(line) <= MAX_LINE and (target := _next_in(line)) is not None:
            return target
    return None


def _next_in(line: str) -> str | None:
    position = 0
    while (position := _after(_SEPARATORS, line, position)) < len(line):
        if target := _TARGET.match(line, position):
            relation, position = _relation(line, target.end())
            if "next" in relation.lower().split() and target[1]:
                return target[1]
        position = _after(_REST_OF_LINK, line, position)
        if position < len(line) and line[position] != ",":
            break  # a quote that never closes: nobody knows what the rest is
    return None


def _relation(line: str, position: int) -> tuple[str, int]:
    """The `rel` among the parameters that begin here, of several the first (RFC 8288, 3.3), and
    where the parameters end."""
    relation: str | None = None
    while parameter := _PARAMETER.match(line, position):
        name, quoted, token = parameter.groups()
        if name.lower() == "rel" and relation is None:
            relation = quoted if quoted is not None else token or ""
        position = parameter.end()
    return relation or "", position


def _after(pattern: re.Pattern[str], line: str, position: int) -> int:
    """Where the text ends that the pattern matches here; the position itself when it does not."""
    match = pattern.match(line, position)
    return match.end() if match else position
