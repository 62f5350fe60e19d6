"""What is known of endpoints: by one process of what its bus tells, and by all together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field, replace

from ..clock import Clock
from ..contracts.activity import EndpointState, Limit
from ..contracts.events import (
    BreakerSwitched,
    EndpointBanned,
    EndpointLeft,
    EndpointRecovered,
    EndpointTroubled,
    LoginJudged,
    QuotaPaused,
    QuotaReported,
    UpstreamAsked,
)
from ..events import Events
from ..frozen import dataclass
from .words import printable

STATES = ("login_refused", "banned", "down", "limited", "stepped_back", "ok", "unknown")
"""The worst first."""

_MOST = 512  # endpoints: only configured ones have names of their own
_MOST_LOGINS = 32  # of one
_FAULTS = 500  # HTTP statuses from here on
_SMOOTHED = 0.2  # the share of a new measurement in the latency
_BREAKERS = {"wrong": "banned", "fault": "down", "limited": "limited"}


@dataclass(slots=True)
class _Endpoint:
    """`troubles`: since when, and why, by state and repository ("" for all)."""

    registry: str
    name: str
    latency: float | None = None
    troubles: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Login:
    limit: int = 0
    remaining: int = 0
    resets_at: float | None = None
    refused_at: float | None = None
    why: str = ""


class EndpointBook:
    """What one process knows."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._wall = clock.wall
        self._endpoints: dict[tuple[str, str], _Endpoint] = {}
        self._logins: dict[tuple[str, str, str], _Login] = {}
        events.listen(UpstreamAsked, self._asked)
        events.listen(EndpointTroubled, self._troubled)
        events.listen(EndpointRecovered, self._recovered)
        events.listen(EndpointBanned, self._banned)
        events.listen(BreakerSwitched, self._switched)
        events.listen(EndpointLeft, self._left)
        events.listen(QuotaReported, self._reported)
        events.listen(QuotaPaused, self._paused)
        events.listen(LoginJudged, self._judged)

    def states(self) -> Sequence[EndpointState]:
        """As they are now."""
        return [self._state(one) for one in self._endpoints.values()]

    def _state(self, one: _Endpoint) -> EndpointState:
        logins = {
            name: login
            for (registry, endpoint, name), login in self._logins.items()
            if (registry, endpoint) == (one.registry, one.name)
        }
        refused = {name: login for name, login in logins.items() if login.refused_at is not None}
        state, since, reason = "unknown" if one.latency is None else "ok", None, ""
        if refused:
            first = min(refused.values(), key=lambda login: login.refused_at or 0.0)
            state, since, reason = "login_refused", first.refused_at, first.why
        elif one.troubles:
            worst = min(one.troubles, key=lambda key: (STATES.index(key[0]), key[1]))
            state, (since, reason) = worst[0], one.troubles[worst]
        return EndpointState(
            one.registry,
            one.name,
            "",
            state,
            since,
            printable(reason),
            one.latency,
            sorted(refused),
            [
                Limit(name, login.limit, login.remaining, login.resets_at)
                for name, login in sorted(logins.items())
                if login.limit or login.resets_at
            ],
        )

    def _of(self, registry: str, name: str) -> _Endpoint:
        found = self._endpoints.get((registry, name))
        if found is None:
            if len(self._endpoints) >= _MOST:
                del self._endpoints[next(iter(self._endpoints))]
            found = self._endpoints[registry, name] = _Endpoint(registry, name)
        return found

    def _login(self, event: QuotaReported | QuotaPaused | LoginJudged) -> _Login:
        key = event.registry, event.endpoint, event.login
        self._of(event.registry, event.endpoint)
        found = self._logins.get(key)
        if found is None:
            if len(self._logins) >= _MOST * 2:
                del self._logins[next(iter(self._logins))]
            found = self._logins[key] = _Login()
        return found

    def _asked(self, event: UpstreamAsked) -> None:
        """A refusal is an answer too, and a fault of its own is none."""
        if not event.status.isdigit() or int(event.status) >= _FAULTS:
            return
        one = self._of(event.registry, event.endpoint)
        before = event.took if one.latency is None else one.latency
        one.latency = before + (event.took - before) * _SMOOTHED

    def _troubled(self, event: EndpointTroubled) -> None:
        self._note(event.registry, event.endpoint, "stepped_back", event.repository, event.reason)

    def _banned(self, event: EndpointBanned) -> None:
        self._note(event.registry, event.endpoint, "banned", event.repository, event.reason)

    def _note(self, registry: str, endpoint: str, state: str, repository: str, why: str) -> None:
        troubles = self._of(registry, endpoint).troubles
        since = troubles[state, repository][0] if (state, repository) in troubles else self._wall()
        if len(troubles) < _MOST_LOGINS or (state, repository) in troubles:
            troubles[state, repository] = since, f"{repository}: {why}" if repository else why

    def _recovered(self, event: EndpointRecovered) -> None:
        troubles = self._of(event.registry, event.endpoint).troubles
        troubles.pop(("stepped_back", event.repository), None)
        troubles.pop(("banned", event.repository), None)

    def _switched(self, event: BreakerSwitched) -> None:
        state = _BREAKERS.get(event.trouble)
        if state is None:
            return
        if event.open:
            of_all = self._of(event.registry, event.endpoint).troubles.get(("stepped_back", ""))
            self._note(event.registry, event.endpoint, state, "", of_all[1] if of_all else "")
        else:
            self._of(event.registry, event.endpoint).troubles.pop((state, ""), None)

    def _left(self, event: EndpointLeft) -> None:
        self._endpoints.pop((event.registry, event.endpoint), None)
        left = event.registry, event.endpoint
        for key in [key for key in self._logins if key[:2] == left]:
            del self._logins[key]

    def _reported(self, event: QuotaReported) -> None:
        login = self._login(event)
        login.limit, login.remaining = event.limit, event.remaining
        login.resets_at = event.resets or None

    def _paused(self, event: QuotaPaused) -> None:
        if event.until:
            self._login(event).resets_at = event.until

    def _judged(self, event: LoginJudged) -> None:
        login = self._login(event)
        if not event.refused:
            login.refused_at, login.why = None, ""
        elif login.refused_at is None:
            login.refused_at, login.why = self._wall(), event.why


@dataclass(frozen=True, slots=True)
class Configured:
    """An endpoint of the configuration."""

    registry: str
    endpoint: str
    url: str


def together(
    configured: Iterable[Configured], seen: Iterable[Sequence[EndpointState]]
) -> Sequence[EndpointState]:
    """Each configured endpoint, as all processes together know it: the worst state that one of them
    sees, the least that is left of a limit. Of an endpoint that is not configured, nothing."""
    found: dict[tuple[str, str], list[EndpointState]] = {}
    for states in seen:
        for state in states:
            found.setdefault((state.registry, state.endpoint), []).append(state)
    return [_joined(one, found.get((one.registry, one.endpoint), [])) for one in configured]


def _joined(one: Configured, states: Sequence[EndpointState]) -> EndpointState:
    empty = EndpointState(one.registry, one.endpoint, one.url, "unknown")
    if not states:
        return empty
    worst = min(states, key=lambda state: (STATES.index(state.state), state.since or 0.0))
    latencies = [state.latency for state in states if state.latency is not None]
    limits: dict[str, Limit] = {}
    for limit in (limit for state in states for limit in state.limits):
        known = limits.get(limit.login)
        if known is None or (limit.resets_at or 0.0, -limit.remaining) > (
            known.resets_at or 0.0,
            -known.remaining,
        ):
            limits[limit.login] = limit
    return replace(
        empty,
        state=worst.state,
        since=worst.since,
        reason=worst.reason,
        latency=min(latencies) if latencies else None,
        logins_refused=sorted({name for state in states for name in state.logins_refused}),
        limits=[limits[login] for login in sorted(limits)],
    )
