"""What the checks of deploy/ share: the real programs, and the metrics that the mirror exports."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from mirror.contracts.content import Usage
from mirror.contracts.registry import Outcome
from mirror.metrics import Metrics

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
    metrics = Metrics()
    metrics.watch(lambda: Usage(content_bytes=60, entries=2, reserved_bytes=10, max_bytes=100))

    def scrape() -> bytes:
        for kind in _KINDS:
            metrics.sent(kind, 1000)
            for outcome in Outcome:
                status = 503 if outcome is Outcome.FAILED else 200
                metrics.answered(kind, str(outcome), status, 0.01, 0.02)
        for status in ("200", "429", "503", "connect", "dns", "tls", "timeout", "cut"):
            metrics.upstream_request("hub", "GET", status)
        metrics.upstream_bytes("hub", 100)
        metrics.upstream_rejected("hub")
        for won in (True, False):
            metrics.upstream_hedged("hub", won)
        for trouble in ("fault", "limited", "wrong"):
            metrics.upstream_breaker("hub", trouble, True)
        metrics.upstream_quota("hub", "me", 200, 20)
        metrics.upstream_quota_until("hub", "me", 2e9)
        metrics.upstream_login_refused("hub", "me", True)
        metrics.fill_started()
        for result in ("committed", "followed", "rejected", "suspended", "failed", "uncached"):
            metrics.fill_started()
            metrics.fill_ended(result)
        for store in ("embedded", "redis"):
            for operation in ("get", "put", "delete"):
                metrics.tag_store_error(store, operation)
        metrics.content_rotten()
        metrics.credentials_dropped()
        for why in ("died", "hung"):
            metrics.worker_replaced(why)
        return metrics.exposition()

    with mock.patch("mirror.metrics.lines_dropped", side_effect=itertools.count()):
        yield scrape
