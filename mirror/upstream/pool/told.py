"""What is told of an endpoint's troubles, in the log and on the bus: each once, and its end."""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog
from cachetools import TTLCache

from ...clock import Clock
from ...contracts.events import EndpointBanned, EndpointRecovered, EndpointTroubled
from ...events import Events

_log = structlog.get_logger()

# Seconds: trouble that lasts is said once an hour, and what comes and goes once a minute.
_SAID_AGAIN = 3600.0
_AT_MOST_EVERY = 60.0
_MOST = 1024  # repositories
_REASONS = 8  # of one repository, or of the whole endpoint
_NUMBERS = re.compile(r"[0-9]+")


class Told:
    """`state` gives the endpoint's state in words, for the lines."""

    def __init__(
        self,
        registry: str,
        endpoint: str,
        clock: Clock,
        events: Events,
        state: Callable[[], str],
    ) -> None:
        self._registry, self._endpoint = registry, endpoint
        self._events = events
        self._state = state
        # By repository, or "" for all of the endpoint: the reasons that were said, without what
        # differs from one time to the next.
        self._said: TTLCache[str, set[str]] = TTLCache(_MOST, _SAID_AGAIN, clock.monotonic)
        self._over: TTLCache[str, set[str]] = TTLCache(_MOST, _AT_MOST_EVERY, clock.monotonic)

    def trouble(self, repository: str, reason: str) -> None:
        """Says it, where it was not said since all was well."""
        said, kind = self._said.get(repository, set()), _NUMBERS.sub("", reason)
        of_all = self._said.get("", set())
        if kind in said | of_all | self._over.get(repository, set()) or len(said) >= _REASONS:
            return
        self._said[repository] = {*said, kind}
        of = {"repository": repository} if repository else {}
        _log.warning(
            "endpoint_steps_back",
            endpoint=self._endpoint,
            **of,
            reason=reason,
            state=self._state(),
            hint="others are asked first, and what is cached is served; `registry-mirror check "
            "--online` tells which step fails",
        )
        self._events.emit(EndpointTroubled(self._registry, self._endpoint, repository, reason))

    def banned(self, repository: str, reason: str, seconds: float) -> None:
        """Says that the endpoint has lied of this repository, or of several: ""."""
        _log.error(
            "endpoint_banned",
            endpoint=self._endpoint,
            repository=repository or "all",
            reason=reason,
            seconds=round(seconds),
            hint="it sent what was not asked for; it is asked only when nobody else answers. "
            "`registry-mirror check --online` tells what answers there",
        )
        self._events.emit(
            EndpointBanned(self._registry, self._endpoint, repository, reason, seconds)
        )

    def well(self, repository: str) -> None:
        """Says that the trouble is over, where there was some."""
        for name in ("", repository):
            if said := self._said.pop(name, None):
                self._over[name] = said
                of = {"repository": name} if name else {}
                _log.info("endpoint_is_back", endpoint=self._endpoint, **of)
                self._events.emit(EndpointRecovered(self._registry, self._endpoint, name))

    def closed(self, trouble: str) -> None:
        """Says that this trouble of the whole endpoint is over."""
        if said := self._said.pop("", None):
            self._over[""] = said
        _log.info("endpoint_is_back", endpoint=self._endpoint, trouble=trouble)
        self._events.emit(EndpointRecovered(self._registry, self._endpoint, ""))
