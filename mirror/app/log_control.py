"""How the mirror logs: as its configuration says, or for a while as a command does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import structlog

from ..activity.pulls import has_missed
from ..clock import Clock
from ..config import Config
from ..contracts.activity import LogState, Pull, rendered
from ..contracts.events import (
    ContentCommitted,
    ContentEvicted,
    EndpointAnswered,
    FillEnded,
    FillQueued,
    FillStarted,
    TagChecked,
    UpstreamAsked,
)
from ..events import Events
from ..logs import LEVELS, LogSettings, is_coloured, is_terminal, settings, tell
from ..logs.text import clock_of, printable
from ..quantities import lasted, size
from ..server.control import Command, CommandFailed, Parameters, one

log = structlog.get_logger()

REQUESTS = ("all", "misses", "none")

LONGEST = 7 * 86400.0
"""Seconds for which a level may be asked for: one that is forgotten is to end."""


def settings_of(config: Config) -> LogSettings:
    """As this configuration says, in this process."""
    log = config.log
    is_text = is_terminal() if log.format == "auto" else log.format == "text"
    return LogSettings(is_text, log.level, log.requests)


def lines_of(settings: LogSettings) -> Mapping[str, bool]:
    """Which requests have a line each: see AccessLog.tell. In text, a pull has one instead."""
    is_told = not settings.is_text and settings.level in ("debug", "info")
    return {
        "hits": is_told and settings.requests == "all",
        "misses": is_told and settings.requests != "none",
    }


class LogSwitch:
    """A LogControl. `apply` has this process, and all others, log so from now on."""

    def __init__(
        self, config: Config, clock: Clock, apply: Callable[[LogSettings], object]
    ) -> None:
        self._apply = apply
        self._wall = clock.wall
        self._falls_back: asyncio.TimerHandle | None = None
        self._until: float | None = None
        self._configured = self._now = settings_of(config)

    def follow(self, config: Config) -> None:
        """From now on it is as this configuration says."""
        self._configured = settings_of(config)
        self._set(self._configured, None)

    @property
    def state(self) -> LogState:
        return LogState(
            "text" if self._now.is_text else "json",
            self._now.level,
            self._now.requests,
            self._configured.level,
            self._until,
        )

    async def level(self, level: str, seconds: float | None) -> LogState:
        self._set(replace(self._now, level=level), seconds)
        return self.state

    async def requests(self, requests: str) -> LogState:
        self._now = replace(self._now, requests=requests)
        self._apply(self._now)
        return self.state

    def _set(self, settings: LogSettings, seconds: float | None) -> None:
        if self._falls_back is not None:
            self._falls_back.cancel()
        self._falls_back = self._until = None
        if settings.level != self._now.level:
            log.warning("log_level", now=settings.level, seconds=seconds)
        self._now = settings
        self._apply(settings)
        if seconds is not None:
            self._until = self._wall() + seconds
            self._falls_back = asyncio.get_running_loop().call_later(seconds, self._fall_back)

    def _fall_back(self) -> None:
        self._set(replace(self._now, level=self._configured.level), None)

    def close(self) -> None:
        if self._falls_back is not None:
            self._falls_back.cancel()

    def commands(self) -> Mapping[str, Command]:
        async def change(parameters: Parameters) -> Mapping[str, Any]:
            level, seconds = parameters.get("level"), parameters.get("seconds")
            requests = parameters.get("requests")
            if level is not None and level not in LEVELS:
                raise CommandFailed(f"{level!r} is no level: {', '.join(LEVELS)}", 2)
            if requests is not None and requests not in REQUESTS:
                raise CommandFailed(f"{requests!r}: write {', '.join(REQUESTS)}", 2)
            if seconds is not None and not (
                isinstance(seconds, int | float) and 0 < seconds <= LONGEST
            ):
                raise CommandFailed(
                    "a level may be asked for more than 0s, and for 7 days at most", 2
                )
            if requests is not None:
                await self.requests(requests)
            if level is not None:
                await self.level(level, seconds)
            return rendered(self.state)

        return {"log": one(change)}


_NARRATED = (
    UpstreamAsked,
    EndpointAnswered,
    TagChecked,
    FillQueued,
    FillStarted,
    FillEnded,
    ContentCommitted,
    ContentEvicted,
)


def narrate(events: Events) -> None:
    """From now on the steps of pulls are told, while `debug` is."""

    def told(event: Any) -> None:
        if settings().level == "debug":
            words = {field.name: str(getattr(event, field.name)) for field in fields(event)}
            log.debug("step", happened=type(event).__name__, **words)

    for kind in _NARRATED:
        events.listen(kind, told)


def tell_pull(pull: Pull) -> None:
    """Where people read the log, a pull that is over is told in one line."""
    present = settings()
    if not present.is_text or present.requests == "none" or present.level not in ("debug", "info"):
        return
    if present.requests == "misses" and not has_missed(pull):
        return
    tell(pull_line(pull, is_coloured=is_coloured()))


def pull_line(pull: Pull, *, is_coloured: bool) -> str:
    """`12:01:07 10.1.2.7 redis:7  HIT 5/5  12 MB  0.20 s`."""
    summary = pull.summary
    if is_coloured:
        colour = "31" if "FAILED" in summary else "32" if summary.startswith("HIT") else "33"
        summary = f"\x1b[{colour}m{summary}\x1b[0m"
    words = [
        clock_of(pull.began_at),
        printable(pull.client),
        printable(pull.image),
        *([f"{pull.pulls} at once"] if pull.pulls > 1 else []),
        f" {summary} ",
        f"{size(pull.bytes)} ",
        lasted(pull.seconds),
    ]
    if pull.failure:
        words.append(f" ({printable(pull.failure)})")
    return " ".join(words)
