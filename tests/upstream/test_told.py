"""What the log says of an endpoint that has trouble, and has it no more."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from mirror.events import Events
from mirror.upstream.pool.told import Told

from ..fakes.clock import HandClock


class Log:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.told = Told("docker.io", "hub", self.clock.clock(), Events(), lambda: "well enough")
        self.lines: list[str] = []

    def trouble(self, repository: str, reason: str) -> list[str]:
        with capture_logs() as logs:
            self.told.trouble(repository, reason)
        return [line["reason"] for line in logs]

    def well(self, repository: str) -> list[str]:
        with capture_logs() as logs:
            self.told.well(repository)
        return [line["event"] for line in logs]


@pytest.fixture
def log() -> Log:
    return Log()


def test_trouble_is_said_once_and_that_it_is_over(log: Log) -> None:
    assert log.trouble("library/a", "it is down") == ["it is down"]
    assert log.trouble("library/a", "it is down") == []
    assert log.well("library/b") == []
    assert log.well("library/a") == ["endpoint_is_back"]
    assert log.well("library/a") == []


def test_other_trouble_is_said_too_but_not_other_numbers(log: Log) -> None:
    assert log.trouble("", "silent for 1.5 s") == ["silent for 1.5 s"]
    assert log.trouble("", "silent for 2.5 s") == []
    assert log.trouble("", "the name is unknown") == ["the name is unknown"]
    assert log.well("library/a") == ["endpoint_is_back"]


def test_trouble_that_comes_and_goes_is_said_once_a_minute(log: Log) -> None:
    said = 0
    for _ in range(120):
        said += len(log.trouble("library/a", "it is down"))
        log.well("library/a")
        log.clock.now += 1.0
    assert said == 2


def test_trouble_that_lasts_is_said_again_within_hours(log: Log) -> None:
    log.trouble("", "it is down")
    log.clock.now += 3599.0
    assert log.trouble("", "it is down") == []
    log.clock.now += 2.0
    assert log.trouble("", "it is down") == ["it is down"]


def test_many_repositories_and_reasons_fill_no_memory(log: Log) -> None:
    said = sum(len(log.trouble("library/a", f"reason {chr(97 + n)}")) for n in range(26))
    assert said == 8


def test_what_is_said_of_the_whole_endpoint_is_not_said_of_its_repositories(log: Log) -> None:
    assert log.trouble("library/a", "it is down") == ["it is down"]
    assert log.trouble("", "it is down") == ["it is down"]
    assert log.trouble("library/b", "it is down") == []
