"""An Activity whose every answer is what the test has put there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mirror.contracts.activity import (
    CacheState,
    Client,
    ConfigState,
    Day,
    Download,
    EndpointState,
    Happening,
    Limit,
    LogState,
    Minute,
    Pull,
    PullRequest,
    Rates,
    SlowAnswer,
    Status,
    Top,
    UnknownSubject,
    Why,
)

NOW = 1_800_000_000.0

GIB = 1 << 30


def request_told(**words: object) -> PullRequest:
    given = PullRequest(
        at=NOW - 60,
        request_id="0123456789abcdef",
        client="10.1.2.7",
        agent="docker/28.5.0",
        method="GET",
        kind="blob",
        reference="sha256:" + "5b" * 32,
        outcome="filled",
        status=200,
        first_byte=0.31,
        last_byte=0.6,
        sent=3_000_000,
        endpoint="registry-1.docker.io",
        queued=0.0,
        upstream=0.3,
        speed=11e6,
        why="never seen here",
    )
    return replace(given, **words)  # type: ignore[arg-type]


def pull_told(**words: object) -> Pull:
    given = Pull(
        id="1",
        client="10.1.2.7",
        agent="docker/28.5.0",
        image="redis:7",
        registry="docker.io",
        repository="library/redis",
        reference="7",
        pulls=1,
        began_at=NOW - 60,
        ended_at=NOW - 59.8,
        seconds=0.2,
        bytes=12_000_000,
        outcomes={"hit": 4, "filled": 1},
        summary="MISS 1/5",
        requests=(request_told(),),
    )
    return replace(given, **words)  # type: ignore[arg-type]


def status_told(**words: object) -> Status:
    given = Status(
        version="0.2.0",
        pid=100,
        pids=(101, 102),
        serving=2,
        started_at=NOW - 3 * 86400,
        now=NOW,
        listen=("0.0.0.0:5000",),
        admin="127.0.0.1:5001",
        store="/var/lib/registry-mirror",
        config=ConfigState("/etc/registry-mirror/mirror.yaml", NOW - 3600),
        cache=CacheState(41 * GIB, 50 * GIB, 0, 9000, 812, NOW - 19 * 86400, 61 * GIB),
        day=Day(NOW - 86400, 9214, 8937, 60_000, 58_000, 412 * 10**9, 11 * 10**9, 0.0003),
        rates=Rates(312e6, 4e6, 120.0, 7, 2, 1),
        log=LogState("json", "info", "all", "info"),
        endpoints=(
            EndpointState(
                "docker.io",
                "registry-1.docker.io",
                "https://registry-1.docker.io",
                "ok",
                latency=0.041,
                limits=(Limit("me", 200, 78, NOW + 3600),),
            ),
            EndpointState(
                "ghcr.io",
                "ghcr.io",
                "https://ghcr.io",
                "login_refused",
                since=NOW - 1800,
                reason="401",
                logins_refused=("me",),
            ),
        ),
    )
    return replace(given, **words)  # type: ignore[arg-type]


@dataclass
class FakeActivity:
    told: Status = field(default_factory=status_told)
    at_once: Rates = field(default_factory=Rates)
    last_hour: Sequence[Minute] = ()
    under_way: Sequence[Download] = ()
    last_pulls: Sequence[Pull] = field(default_factory=lambda: (pull_told(),))
    happened: Sequence[Happening] = ()
    busiest: Sequence[Client] = ()
    slowest: Sequence[SlowAnswer] = ()
    reasons: dict[str, Why] = field(default_factory=dict)
    number: int = 1
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def now_is_new(self) -> None:
        """Ends the waits for a change."""
        self.number += 1
        self._news.set()

    async def status(self) -> Status:
        return self.told

    def top(self) -> Top:
        return Top(
            self.told.now,
            self.at_once,
            self.under_way,
            self.slowest,
            self.busiest,
            self.last_pulls,
        )

    def minutes(self) -> Sequence[Minute]:
        return self.last_hour

    def downloads(self) -> Sequence[Download]:
        return self.under_way

    def pulls(self, limit: int = 50, like: str = "") -> Sequence[Pull]:
        found = [
            pull
            for pull in self.last_pulls
            if any(like.lower() in text.lower() for text in (pull.image, pull.client, pull.summary))
        ]
        return found[:limit]

    def happenings(self, limit: int = 50) -> Sequence[Happening]:
        return self.happened[:limit]

    async def why(self, subject: str) -> Why:
        if subject not in self.reasons:
            raise UnknownSubject(f"nothing is known of {subject}")
        return self.reasons[subject]

    async def changed(self, than: int, within: float) -> int:
        if self.number == than:
            self._news.clear()
            try:
                async with asyncio.timeout(within):
                    await self._news.wait()
            except TimeoutError:
                pass
        return self.number
