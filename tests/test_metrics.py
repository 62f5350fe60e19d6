"""What operators see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mirror.contracts.content import Usage
from mirror.contracts.events import (
    BreakerSwitched,
    ContentQuarantined,
    FillEnded,
    FillQueued,
    FillStarted,
    HitsAnswered,
    QuotaReported,
    RequestAnswered,
    UpstreamAsked,
    UpstreamRead,
)
from mirror.events import Events
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository

HUB = "docker.io"
REDIS = Repository(HUB, "library/redis")
LAYER = Digest.of(b"layer")


class Counting:
    """The metrics of one process, and the bus that feeds them."""

    def __init__(self) -> None:
        self.events = Events()
        self.metrics = Metrics(self.events, [HUB])
        self.emit = self.events.emit

    def told(self) -> Any:
        """What another process hears of it."""
        return json.loads(json.dumps(self.metrics.changes()))

    def lines(self) -> list[str]:
        return self.metrics.exposition().decode().splitlines()

    def numbers(self, name: str) -> dict[str, float]:
        """By labels, as they are written."""
        found = {}
        for line in self.lines():
            if line.startswith((f"registry_mirror_{name}{{", f"registry_mirror_{name} ")):
                labels, _, value = line.removeprefix(f"registry_mirror_{name}").rpartition(" ")
                found[labels] = float(value)
        return found


def answered(kind: str, outcome: str, *, registry: str = HUB, sent: int = 0) -> RequestAnswered:
    return RequestAnswered(
        kind, registry, "library/redis", "7", outcome, 200, "1.2.3.4", sent, 0.01, 0.2
    )


def test_what_happens_is_counted_under_its_labels() -> None:
    process = Counting()
    process.emit(answered("tag", "stale", sent=7))
    process.emit(UpstreamAsked(HUB, "registry-1.docker.io", "HEAD", "429"))
    process.metrics.watch(lambda: Usage(10, 2, 5, 100), lambda: 7)
    shown = process.lines()
    for line in (
        'registry_mirror_requests_total{kind="tag",outcome="stale",registry="docker.io"} 1.0',
        'registry_mirror_responses_total{kind="tag",status="200"} 1.0',
        'registry_mirror_sent_bytes_total{kind="tag",registry="docker.io"} 7.0',
        'registry_mirror_first_byte_seconds_count{kind="tag",outcome="stale"} 1.0',
        'registry_mirror_upstream_requests_total{endpoint="registry-1.docker.io",'
        'method="HEAD",registry="docker.io",status="429"} 1.0',
        "registry_mirror_cache_bytes 10.0",
        "registry_mirror_cache_reserved_bytes 5.0",
        "registry_mirror_cache_disk_free_bytes 7.0",
    ):
        assert line in shown


def test_registries_that_only_clients_have_named_count_as_one() -> None:
    process = Counting()
    for number in range(100):
        name = f"registry-{number}.example"
        process.emit(answered("blob", "filled", registry=name, sent=1))
        process.emit(HitsAnswered("tag", name, 200, count=2, took=0.001, sent=20))
        process.emit(UpstreamAsked(name, "unconfigured", "GET", "200"))
        process.emit(FillEnded(number, Repository(name, "app"), LAYER, "committed", 5))
    process.emit(answered("ping", "hit", registry=""))
    others = 'registry="unconfigured"'
    assert process.numbers("requests_total") == {
        f'{{kind="blob",outcome="filled",{others}}}': 100.0,
        f'{{kind="tag",outcome="hit",{others}}}': 200.0,
        '{kind="ping",outcome="hit",registry=""}': 1.0,
    }
    assert process.numbers("sent_bytes_total") == {
        f'{{kind="blob",{others}}}': 100.0,
        f'{{kind="tag",{others}}}': 2000.0,
    }
    assert list(process.numbers("upstream_requests_total").values()) == [100.0]
    assert process.numbers("fills_total") == {f'{{{others},result="committed"}}': 100.0}


def test_a_fill_that_waits_does_not_run_and_one_that_follows_does_neither() -> None:
    process = Counting()
    hub = '{registry="docker.io"}'

    def now() -> tuple[float, float]:
        return process.numbers("fills_waiting")[hub], process.numbers("fills_running")[hub]

    for fill in (1, 2):
        process.emit(FillQueued(fill, REDIS, LAYER))
    process.emit(FillStarted(1, REDIS, LAYER))
    assert now() == (1, 1)
    process.emit(FillQueued(1, REDIS, LAYER))  # it gave its place to the other
    process.emit(FillStarted(2, REDIS, LAYER))
    assert now() == (1, 1)
    process.emit(FillEnded(3, REDIS, LAYER, "followed", 5))
    assert now() == (1, 1)
    process.emit(FillEnded(1, REDIS, LAYER, "suspended", 5))  # it has waited in vain
    process.emit(FillEnded(2, REDIS, LAYER, "committed", 5))
    assert now() == (0, 0)


def test_several_processes_count_together_and_the_dead_run_nothing() -> None:
    shown, workers = Counting(), {1: Counting(), 2: Counting()}
    for pid, worker in workers.items():
        worker.emit(FillQueued(1, REDIS, LAYER))
        worker.emit(FillStarted(1, REDIS, LAYER))
        worker.emit(UpstreamRead("docker.io", "registry-1.docker.io", 1000))
        worker.emit(answered("blob", "filled"))
        worker.emit(BreakerSwitched("docker.io", "registry-1.docker.io", "content", pid == 1))
        shown.metrics.hear(pid, worker.told())
    shown.emit(ContentQuarantined(LAYER))
    both = (
        "registry_mirror_upstream_bytes_total"
        '{endpoint="registry-1.docker.io",registry="docker.io"} 2000.0'
    )
    first_byte = 'registry_mirror_first_byte_seconds_bucket{kind="blob",le="%s",outcome="filled"}'
    open_breaker = (
        "registry_mirror_upstream_breaker_open"
        '{endpoint="registry-1.docker.io",registry="docker.io",trouble="content"} %s'
    )
    running = 'registry_mirror_fills_running{registry="docker.io"} %s'
    found = shown.lines()
    assert both in found
    assert running % "2.0" in found
    assert f"{first_byte % '0.005'} 0.0" in found
    assert f"{first_byte % '0.01'} 2.0" in found
    assert f"{first_byte % '+Inf'} 2.0" in found
    assert 'registry_mirror_last_byte_seconds_sum{kind="blob",outcome="filled"} 0.4' in found
    assert open_breaker % "1.0" in found
    assert "registry_mirror_content_rotten_total 1.0" in found  # its own
    shown.metrics.forget(1)
    found = shown.lines()
    assert both in found
    assert running % "1.0" in found
    assert f"{first_byte % '+Inf'} 2.0" in found
    assert open_breaker % "0.0" in found
    workers[2].emit(UpstreamRead("docker.io", "registry-1.docker.io", 500))
    shown.metrics.hear(2, workers[2].told())
    assert both.replace("2000", "2500") in shown.lines()


def test_of_a_number_that_several_know_the_one_that_was_heard_last_is_shown() -> None:
    shown, one, other = Counting(), Counting(), Counting()
    one.emit(QuotaReported("hub", "me", 100, 80))
    shown.metrics.hear(1, one.told())
    other.emit(QuotaReported("hub", "me", 100, 60))
    shown.metrics.hear(2, other.told())
    left = 'registry_mirror_upstream_quota_remaining{endpoint="hub",login="me"} %s'
    assert left % "60.0" in shown.lines()
    one.emit(QuotaReported("hub", "me", 100, 59))
    shown.metrics.hear(1, one.told())
    assert left % "59.0" in shown.lines()


def test_only_what_has_changed_is_told() -> None:
    process = Counting()
    sent = ["registry_mirror_sent_bytes", [HUB, "blob"]]
    process.emit(answered("blob", "hit", sent=10))
    assert sent in [key for key, _ in process.told()]
    assert process.told() == []
    process.emit(answered("blob", "hit", sent=5))
    assert [sent, [15.0]] in process.told()


def test_what_is_exported_is_what_somebody_can_use() -> None:
    process = Counting()
    process.emit(answered("blob", "hit"))
    assert not [line for line in process.lines() if "_created" in line]


def test_processes_tell_what_they_take_of_the_machine() -> None:
    shown, worker = Counting(), Counting()
    (alone,) = shown.numbers("process_resident_bytes").values()
    assert alone > 1 << 20
    shown.metrics.hear(1, worker.told())
    assert shown.numbers("process_resident_bytes") == {"": pytest.approx(2 * alone, rel=0.2)}
    (open_fds,) = shown.numbers("process_open_fds").values()
    (limit,) = shown.numbers("process_max_fds").values()
    assert 3 <= open_fds < limit
    assert shown.numbers("process_cpu_seconds_total")[""] > 0


def test_a_disk_that_does_not_answer_ends_no_scrape() -> None:
    def gone() -> int:
        raise OSError

    process = Counting()
    process.metrics.watch(lambda: Usage(10, 2, 5, 100), gone)
    assert process.numbers("cache_bytes") == {"": 10.0}
    assert process.numbers("cache_disk_free_bytes") == {}


def test_a_listener_that_fails_is_counted() -> None:
    process = Counting()

    def fails(event: UpstreamRead) -> None:
        raise ValueError

    process.events.listen(UpstreamRead, fails)
    for _ in range(3):
        process.emit(UpstreamRead("docker.io", "hub", 1))
    assert process.numbers("listener_failures_total") == {"": 3.0}


def test_what_an_upstream_sent_is_counted_by_registry_and_endpoint() -> None:
    process = Counting()
    for registry in ("docker.io", "a.registry.that.a.client.named", "another.example"):
        process.emit(UpstreamRead(registry, "hub", 10))
    found = process.lines()
    metric = 'registry_mirror_upstream_bytes_total{endpoint="hub",registry="%s"} %s'
    assert metric % ("docker.io", "10.0") in found
    assert metric % ("unconfigured", "20.0") in found
