"""What the checks of deploy/ share: the real programs, and the metrics that the mirror exports."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from mirror.contracts.content import Usage
from mirror.contracts.events import (
    BlobDeleted,
    BlobPushed,
    BlobRedirected,
    BreakerSwitched,
    CatalogueDropped,
    CertificateShown,
    CollectionEnded,
    ConfigLoaded,
    ConfigReloaded,
    ContentEvicted,
    ContentPurged,
    ContentQuarantined,
    CredentialsDropped,
    EndpointJoined,
    FillEnded,
    FillQueued,
    FillStarted,
    FleetNodesCounted,
    HeldContentChecked,
    LeasesSwitched,
    LoginJudged,
    ManifestDeleted,
    ManifestPushed,
    PeerAnswered,
    PeerAsked,
    PeerFollowing,
    Prefetched,
    PrefetchRead,
    QuotaPaused,
    QuotaReported,
    RequestAnswered,
    RetentionEnded,
    SecondTierAsked,
    SecondTierBacklog,
    SecondTierFailed,
    SecondTierGiven,
    SecondTierMissed,
    SecondTierSwept,
    SecondTierWrong,
    SyncBegun,
    SyncEnded,
    TagDeleted,
    TagStoreFailed,
    TagStoreSwitched,
    UpkeepEnded,
    UpstreamAsked,
    UpstreamHedged,
    UpstreamRead,
    UpstreamRejected,
    WebhookAttempted,
    WebhooksCounted,
    WorkerReplaced,
)
from mirror.contracts.registry import Outcome
from mirror.events import Events
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.disk.free_space import FreeSpace

_ROOT = Path(__file__).resolve().parents[2]
_KINDS = ("ping", "manifest", "tag", "blob", "tags", "referrers", "other")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return _ROOT


@pytest.fixture(scope="session")
def deploy() -> Path:
    return _ROOT / "deploy"


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """`program(name, comes_from)`: where a program is; where it is not, the test that needs it is
    skipped with the name of what to install. In CI a missing program is a failure."""

    def find(name: str, comes_from: str) -> str:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.exists() else shutil.which(name)
        if found is None:
            missing = f"{name} is not here: install {comes_from}"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        return found

    return find


@pytest.fixture(scope="module")
def busy() -> Iterator[Callable[[], bytes]]:
    """Each call lets everything happen once more, and is then a scrape: so every series that the
    mirror can export is there, and each counter rises."""
    events = Events()
    metrics = Metrics(events, ["docker.io"])
    usage = Usage(content_bytes=60, entries=2, reserved_bytes=10, max_bytes=100)
    metrics.watch(lambda: usage, lambda: FreeSpace(total=100_000, free=1000, block=1, files=None))
    metrics.watch_connections(lambda: 7)
    metrics.watch_workers(lambda: {0: os.getpid()})
    redis, layer = Repository("docker.io", "library/redis"), Digest.of(b"layer")
    numbers = itertools.count()

    def breaks(event: WorkerReplaced) -> None:
        raise ValueError

    events.listen(WorkerReplaced, breaks)

    def happen() -> Iterator[object]:
        for kind in _KINDS:
            for outcome in Outcome:
                status = 503 if outcome is Outcome.FAILED else 200
                yield RequestAnswered(
                    kind, "docker.io", "", "", outcome, status, "", 1000, 0.01, 0.02
                )
        for status in ("200", "429", "503", "connect", "dns", "tls", "timeout", "cut", "proxy"):
            yield UpstreamAsked("docker.io", "hub", "GET", status, 0.1)
        yield FleetNodesCounted(3)
        yield LeasesSwitched(works=False)
        yield PeerAnswered("growing", 1000)
        yield PeerAnswered("refused", reason="clock")
        yield PeerFollowing(1)
        for result in ("stream", "elsewhere", "nothing", "away", "refused", "wrong"):
            yield PeerAsked(result)
        yield SecondTierGiven(kept=True, digest=layer, sent=1000)
        yield SecondTierGiven(kept=False, digest=layer)
        yield SecondTierMissed(layer, 1000)
        yield SecondTierFailed("get")
        yield SecondTierBacklog(3, 7200.0)
        swept = {"old": (1, 100), "room": (2, 200), "wrong": (1, 10)}
        yield SecondTierSwept(time.time(), False, 10, 1000, swept)
        yield SecondTierSwept(time.time(), True)
        yield BlobRedirected(redis, layer, 1000)
        for result in ("hit", "miss", "away"):
            yield SecondTierAsked(result)
        yield SecondTierWrong(layer, set_aside=True)
        yield SecondTierWrong(layer, set_aside=False)
        yield UpstreamRead("docker.io", "hub", 100)
        yield UpstreamRejected("docker.io", "hub")
        yield CatalogueDropped(3)
        yield EndpointJoined("docker.io", "hub")
        for won in (True, False):
            yield UpstreamHedged("docker.io", "hub", won)
        for trouble in ("fault", "limited", "wrong"):
            yield BreakerSwitched("docker.io", "hub", trouble, True)
        yield QuotaReported("docker.io", "hub", "me", 200, 10, 2e9)
        yield QuotaPaused("docker.io", "hub", "me", 2e9)
        yield LoginJudged("docker.io", "hub", "me", True)
        yield FillQueued(next(numbers), redis, layer)
        yield FillStarted(next(numbers), redis, layer, 0.5)
        for result in ("committed", "followed", "rejected", "suspended", "failed", "uncached"):
            yield FillEnded(next(numbers), redis, layer, result, 10)
        for store in ("embedded", "redis"):
            for operation in ("get", "put", "delete"):
                yield TagStoreFailed(store, operation)
        yield ContentQuarantined(layer)
        yield ContentEvicted(layer, 10, 100.0, 200.0)
        yield ContentPurged(layer, 10)
        yield Prefetched(redis, layer, 100)
        yield PrefetchRead(redis, layer, 100)
        for store in ("embedded", "redis"):
            yield TagStoreSwitched(store, "write", False)
        for work in ("mend", "tidy", "settle", "scrub"):
            for went_well in (True, False):
                yield UpkeepEnded(work, 1_795_000_000.0 + (not went_well), went_well)
        yield CredentialsDropped()
        for why in ("died", "hung"):
            yield WorkerReplaced(why)
        yield CertificateShown(time.time() + 1000)
        yield ConfigLoaded(1_795_000_000.0)
        for result in ("applied", "refused", "failed"):
            yield ConfigReloaded(result)
        yield SyncBegun("bases")
        yield SyncEnded("bases", "failed", 3, 1, 500, 2.0)
        for result in ("delivered", "refused", "later", "unreachable"):
            yield WebhookAttempted(result, True, 0.1)
        team = Repository("registry.corp.lan", "team/app")
        yield BlobPushed(team, layer, 100, "ann")
        yield ManifestPushed(team, layer, "application/x", 10, "1", None, "ann")
        yield TagDeleted(team, "1", "ann")
        yield ManifestDeleted(team, layer, "ann")
        yield BlobDeleted(team, layer, "ann")
        for at, result in enumerate(("done", "failed")):
            yield CollectionEnded(result, 1_795_000_000.0 + at, 1, 1, 1, 100)
        yield HeldContentChecked(1)
        yield RetentionEnded(1_795_000_000.0, 1, 1, 1)
        yield WebhooksCounted(waiting=3, oldest=7200.0, dropped=1, given_up=1)

    def scrape() -> bytes:
        for event in happen():
            events.emit(event)
        return metrics.exposition()

    with mock.patch("mirror.metrics.processes.lines_dropped", side_effect=itertools.count()):
        yield scrape
