"""What the contracts tell, made ready for the page's templates: pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...contracts.activity import EndpointState, Limit, Minute, Status
from ...frozen import dataclass

_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - how an address for all is written

MARKS = {
    "ok": ("●", "good", "ok"),
    "unknown": ("○", "idle", "not asked yet"),
    "stepped_back": ("◐", "warn", "stepped back"),
    "limited": ("◐", "warn", "limited"),
    "down": ("▲", "bad", "down"),
    "banned": ("▲", "bad", "banned"),
    "login_refused": ("▲", "bad", "login refused"),
}
"""Of each state of an endpoint: a sign, a class, words."""

_TO_DO = {
    "login_refused": "check its credentials, then reload; what is cached is still served",
    "down": "what is cached is still served",
    "banned": "it sent what was not asked for",
    "limited": "tags are believed for longer until it grants more",
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """`registry` is "" where the line before has the same."""

    registry: str
    endpoint: EndpointState
    sign: str
    look: str
    words: str
    to_do: str
    limits: Sequence[Limit]


def upstreams(endpoints: Sequence[EndpointState]) -> Sequence[Upstream]:
    """By registry, as they come."""
    found, before = [], None
    for each in endpoints:
        sign, look, words = MARKS.get(each.state, ("○", "idle", each.state))
        shown = "" if each.registry == before else each.registry
        to_do = _TO_DO.get(each.state, "")
        found.append(Upstream(shown, each, sign, look, words, to_do, each.limits))
        before = each.registry
    return found


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of the sparkline, in its viewBox: `all` and `hit` are heights."""

    x: int
    all: float
    hit: float


HEIGHT = 24.0
MINUTES = 60


def bars(minutes: Sequence[Minute]) -> Sequence[Bar]:
    """The last hour, the newest at the right; as high as the busiest minute has requests.

    >>> bars([Minute(0.0, 10, 5, 0, 0)])
    [Bar(x=59, all=24.0, hit=12.0)]
    """
    shown = list(minutes)[-MINUTES:]
    most = max((each.requests for each in shown), default=0)
    first = MINUTES - len(shown)
    return [
        Bar(first + place, _part(each.requests, most), _part(each.hits, most))
        for place, each in enumerate(shown)
    ]


def _part(count: int, most: int) -> float:
    return round(HEIGHT * count / most, 1) if most else 0.0


@dataclass(frozen=True, slots=True)
class ClientLines:
    """What is written on a client's host."""

    address: str
    daemon_json: str
    hosts_toml: str


def client_lines(listen: Sequence[str], asked_as: str, host: str, scheme: str) -> ClientLines:
    """`asked_as`: the name by which the reader's browser has found this machine; `host`: the
    machine's own name, for where that is a loopback one, and says nothing to others.

    >>> client_lines(["0.0.0.0:5000"], "localhost:5001", "mirror.lan", "http").address
    'http://mirror.lan:5000'
    >>> client_lines([":5000"], "10.1.2.3:5001", "mirror.lan", "http").address
    'http://10.1.2.3:5000'
    >>> client_lines(["127.0.0.1:5000"], "localhost:5001", "mirror.lan", "http").address
    'http://127.0.0.1:5000'
    """
    bound, _, port = (listen[0] if listen else ":5000").rpartition(":")
    if bound.strip("[]") in _ANY:
        name = asked_as.rpartition(":")[0] if asked_as[-1:].isdigit() else asked_as
        is_own = name.strip("[]") in ("localhost", "::1") or name.startswith("127.")
        bound = host if is_own or not name else name
    address = f"{scheme}://{bound}:{port}"
    return ClientLines(
        address,
        json.dumps({"registry-mirrors": [address]}),
        'server = "https://registry-1.docker.io"\n'
        f'[host."{address}"]\n  capabilities = ["pull", "resolve"]\n',
    )


@dataclass(frozen=True, slots=True)
class ConfigWords:
    look: str
    words: str
    detail: str


def config_words(status: Status) -> ConfigWords:
    config = status.config
    name = config.path or "the defaults"
    last = config.last_reload
    if last is not None and last.result != "applied":
        return ConfigWords("bad", f"config {last.result}", "; ".join((name, *last.words)))
    if config.is_gone:
        return ConfigWords("warn", "config gone", f"{name} cannot be read any more")
    if config.changed_at is not None:
        return ConfigWords("warn", "config changed", f"{name} has changed since: reload")
    return ConfigWords("good", "config ok", name)
