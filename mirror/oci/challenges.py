"""What a registry wants to be shown: WWW-Authenticate (RFC 9110, 11.6.1).

The header is a list of challenges, each of which may hold a list, both joined by commas:

    Negotiate YWJj=, Bearer realm="https://auth.example/token", service="a, b", Basic realm="x"

So an element is a parameter of the challenge before it when a `=` follows its first word, and
begins a challenge otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..frozen import dataclass

# What is longer is left out whole: cut, it might mean something else.
MAX_LINE = 65536
MAX_LINES = 64
MAX_CHALLENGES = 64  # each takes longer to read than it takes to send

# Linear, whatever comes: each repetition either takes all it can and gives nothing back (`*+`), or
# takes a step that can be made in one way only.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # a `token` (RFC 9110, 5.6.2)
# Only ASCII, though quoted text may be more (obs-text): values go into URLs, never to a reader.
_QUOTABLE = r"[\t !#-\[\]-~]*+"
_END = r"[ \t]*+(?=,|\Z)"
_SEPARATORS = re.compile(r"[ \t,]*+")
_SCHEME = re.compile(rf"({_WORD})(?:{_END}|[ \t]++(?!=))")
_PARAMETER = re.compile(
    rf'({_WORD})[ \t]*+=[ \t]*+(?:({_WORD})|"({_QUOTABLE}(?:\\[\t !-~]{_QUOTABLE})*)"){_END}'
)
_BROKEN_PARAMETER = re.compile(rf"{_WORD}[ \t]*+=")
_REST_OF_ELEMENT = re.compile(
    r"""[^",]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*"[^",]*+)*""", re.DOTALL
)  # up to a comma outside of quotes, or to a quote that never closes
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate. Scheme and parameter names are lower-case, values as they came.

    The token68 form (`Negotiate YWJj=`) leaves `parameters` empty: no registry scheme uses it.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Sequence[str]) -> tuple[Challenge, ...]:
    """All challenges of these WWW-Authenticate lines, in order.

    Never raises. What cannot be parsed is left out: a malformed parameter alone; with a malformed
    scheme all that belongs to it, so that its parameters never pass to the challenge before it.
    Of a parameter that occurs twice in a challenge, the first is taken. Each line stands alone.
    """
    found: list[Challenge] = []
    for line in headers[:MAX_LINES]:
        if len(line) <= MAX_LINE:
            found += _parse_line(line)
    return tuple(found[:MAX_CHALLENGES])


def _parse_line(line: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    parameters: dict[str, str] = {}  # of the challenge begun last, while it can take any
    position = 0
    while (position := _after(_SEPARATORS, line, position)) < len(line):
        if len(found) > MAX_CHALLENGES:
            break
        if scheme := _SCHEME.match(line, position):
            parameters = {}
            found.append((scheme[1].lower(), parameters))
            position = scheme.end()
            if position == len(line) or line[position] == ",":
                continue
        # Here begins an element, or goes on behind its scheme: a parameter, or nothing known.
        if parameter := _PARAMETER.match(line, position):
            name, token, quoted = parameter.groups()
            value = token if quoted is None else _ESCAPE.sub(r"\1", quoted)
            parameters.setdefault(name.lower(), value)
            position = parameter.end()
            continue
        if not _BROKEN_PARAMETER.match(line, position):
            parameters = {}  # a token68, or a challenge that is left out: what follows is no one's
        position = _after(_REST_OF_ELEMENT, line, position)
        if position < len(line) and line[position] != ",":
            break  # a quote that never closes: nobody knows what the rest is
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _after(pattern: re.Pattern[str], line: str, position: int) -> int:
    """Where the text ends that the pattern matches here; the position itself when it does not."""
    match = pattern.match(line, position)
    return match.end() if match else position
