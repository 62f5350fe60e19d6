"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .failed_alone import NOT_SET_UP
from .seaweed import Seaweed, seaweed_running


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """One for all: who freezes it, or ends it, has it run again. Whoever uses it is of the group
    `seaweed`, so that one process of pytest has it."""
    with seaweed_running() as server:
        yield server


_not_set_up: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "setup" and report.failed:
        _not_set_up.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For tests/failed_alone.py; by the process that has all reports."""
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set(NOT_SET_UP, _not_set_up)
