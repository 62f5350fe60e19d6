"""What operators see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import ProcessCollector

from mirror.contracts.content import Usage
from mirror.contracts.events import (
    BreakerSwitched,
    ConfigLoaded,
    ConfigReloaded,
    ContentEvicted,
    ContentPurged,
    ContentQuarantined,
    EndpointJoined,
    EndpointLeft,
    FillEnded,
    FillQueued,
    FillStarted,
    HitsAnswered,
    Prefetched,
    PrefetchRead,
    QuotaReported,
    RequestAnswered,
    SyncBegun,
    SyncEnded,
    TagStoreSwitched,
    UpkeepEnded,
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


@dataclass(frozen=True)
class Disk:
    total: int
    free: int


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

    def numbers(self, name: str, prefix: str = "registry_mirror_") -> dict[str, float]:
        """By labels, as they are written."""
        found = {}
        for line in self.lines():
            if line.startswith((f"{prefix}{name}{{", f"{prefix}{name} ")):
                labels, _, value = line.removeprefix(prefix + name).rpartition(" ")
                found[labels] = float(value)
        return found


def answered(kind: str, outcome: str, *, registry: str = HUB, sent: int = 0) -> RequestAnswered:
    return RequestAnswered(
        kind, registry, "library/redis", "7", outcome, 200, "1.2.3.4", sent, 0.01, 0.2
    )


def test_what_happens_is_counted_under_its_labels() -> None:
    process = Counting()
    process.emit(answered("tag", "stale", sent=7))
    process.emit(UpstreamAsked(HUB, "registry-1.docker.io", "HEAD", "429", 0.2))
    process.metrics.watch(lambda: Usage(10, 2, 5, 100), lambda: Disk(90, 7))
    shown = process.lines()
    for line in (
        'registry_mirror_requests_total{kind="tag",outcome="stale",registry="docker.io"} 1.0',
        'registry_mirror_responses_total{kind="tag",registry="docker.io",status="200"} 1.0',
        'registry_mirror_sent_bytes_total{kind="tag",registry="docker.io"} 7.0',
        'registry_mirror_first_byte_seconds_count{kind="tag",outcome="stale"} 1.0',
        'registry_mirror_upstream_requests_total{endpoint="registry-1.docker.io",'
        'method="HEAD",registry="docker.io",status="429"} 1.0',
        "registry_mirror_cache_bytes 10.0",
        "registry_mirror_cache_reserved_bytes 5.0",
        "registry_mirror_cache_disk_free_bytes 7.0",
        "registry_mirror_cache_disk_bytes 90.0",
    ):
        assert line in shown


def test_registries_that_only_clients_have_named_count_as_one() -> None:
    process = Counting()
    for number in range(100):
        name = f"registry-{number}.example"
        process.emit(answered("blob", "filled", registry=name, sent=1))
        process.emit(HitsAnswered("tag", name, 200, count=2, took=0.001, sent=20))
        process.emit(UpstreamAsked(name, "unconfigured", "GET", "200", 0.1))
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
    process.emit(FillStarted(1, REDIS, LAYER, 0.5))
    assert now() == (1, 1)
    process.emit(FillQueued(1, REDIS, LAYER))  # it gave its place to the other
    process.emit(FillStarted(2, REDIS, LAYER, 0.5))
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
        worker.emit(FillStarted(1, REDIS, LAYER, 0.5))
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
    one.emit(QuotaReported(HUB, "hub", "me", 100, 80, 0.0))
    shown.metrics.hear(1, one.told())
    other.emit(QuotaReported(HUB, "hub", "me", 100, 60, 0.0))
    shown.metrics.hear(2, other.told())
    labels = '{endpoint="hub",login="me",registry="docker.io"}'
    left = f"registry_mirror_upstream_quota_remaining{labels} %s"
    assert left % "60.0" in shown.lines()
    one.emit(QuotaReported(HUB, "hub", "me", 100, 59, 0.0))
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


def test_processes_tell_what_they_take_of_the_machine_under_the_usual_names() -> None:
    shown, worker = Counting(), Counting()

    def number(name: str) -> float:
        return shown.numbers(name, prefix="process_")[""]

    usual = {family.name: family for family in ProcessCollector(registry=None).collect()}
    alone = number("resident_memory_bytes")
    assert alone > 1 << 20
    shown.metrics.hear(1, worker.told())
    assert number("resident_memory_bytes") == pytest.approx(2 * alone, rel=0.2)
    assert 3 <= number("open_fds") < number("max_fds")
    assert number("cpu_seconds_total") > 0
    started = usual["process_start_time_seconds"].samples[0].value
    assert number("start_time_seconds") == pytest.approx(started, abs=2)
    for family in usual.values():
        assert f"# TYPE {family.samples[0].name} {family.type}" in shown.lines()


def test_what_each_worker_takes_is_told_by_its_number() -> None:
    shown = Counting()
    shown.metrics.watch_workers(lambda: {0: os.getpid(), 1: 2**22 + 1})  # none has that pid
    found = shown.numbers("worker_resident_memory_bytes")
    assert list(found) == ['{worker="0"}']
    assert found['{worker="0"}'] > 1 << 20
    assert shown.numbers("worker_cpu_seconds_total")['{worker="0"}'] > 0
    assert shown.numbers("worker_open_fds")['{worker="0"}'] >= 3
    started = shown.numbers("worker_start_time_seconds")['{worker="0"}']
    assert started == shown.numbers("start_time_seconds", prefix="process_")[""]


def test_a_disk_that_does_not_answer_ends_no_scrape() -> None:
    def gone() -> Disk:
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


def test_of_what_is_evicted_it_is_told_how_old_it_was() -> None:
    process = Counting()
    process.emit(ContentEvicted(LAYER, 1000, unused=7 * 3600.0, age=20 * 86400.0))
    process.emit(ContentEvicted(LAYER, 10, unused=30.0, age=40.0))
    process.emit(ContentEvicted(LAYER, 0))  # the account did not know it
    assert process.numbers("evicted_total") == {"": 3.0}
    assert process.numbers("evicted_bytes_total") == {"": 1010.0}
    assert process.numbers("evicted_soon_total") == {"": 1.0}
    within = process.numbers("evicted_unused_seconds_bucket")
    assert within['{le="60.0"}'] == 1
    assert within['{le="21600.0"}'] == 1
    assert within['{le="86400.0"}'] == 2


def test_runs_of_sync_and_what_is_purged_are_counted() -> None:
    process = Counting()
    process.emit(SyncBegun("bases"))
    process.emit(SyncBegun("ours"))
    process.emit(SyncEnded("bases", "failed", images=3, failed=1, fetched=500, seconds=2.0))
    assert process.numbers("sync_running") == {'{entry="bases"}': 0.0, '{entry="ours"}': 1.0}
    assert process.numbers("sync_runs_total") == {'{entry="bases",result="failed"}': 1.0}
    assert process.numbers("sync_fetched_bytes_total") == {'{entry="bases"}': 500.0}
    assert process.numbers("sync_failed_images") == {'{entry="bases"}': 1.0}
    process.emit(ContentPurged(LAYER, 70))
    process.emit(ContentPurged(LAYER, 30))
    assert process.numbers("purged_total") == {"": 2.0}
    assert process.numbers("purged_bytes_total") == {"": 100.0}


def test_an_entry_of_sync_that_a_reload_has_removed_is_no_trouble_any_more() -> None:
    process = Counting()
    process.emit(SyncBegun("gone"))
    process.emit(SyncEnded("gone", "failed", images=3, failed=2, fetched=0, seconds=2.0))
    process.emit(ConfigReloaded("applied", ()))
    assert process.numbers("sync_failed_images") == {'{entry="gone"}': 0.0}


def test_hits_that_are_counted_together_stand_in_the_bucket_of_their_bound() -> None:
    process = Counting()
    process.emit(HitsAnswered("tag", HUB, 200, count=3, took=0.0003, sent=0, within=0.0002))
    process.emit(HitsAnswered("tag", HUB, 200, count=2, took=0.0015, sent=0, within=0.001))
    labels = '{kind="tag",le="%s",outcome="hit"}'
    for name in ("first_byte_seconds", "last_byte_seconds"):
        found = process.numbers(f"{name}_bucket")
        assert (found[labels % "0.0002"], found[labels % "0.001"]) == (3, 5)
        assert process.numbers(f"{name}_sum") == {'{kind="tag",outcome="hit"}': 0.0018}


def test_how_long_downloads_wait_and_endpoints_take_is_observed() -> None:
    process = Counting()
    process.emit(FillStarted(1, REDIS, LAYER, 4.0))
    process.emit(UpstreamAsked(HUB, "hub", "GET", "200", 0.3))
    waited = process.numbers("fills_waited_seconds_bucket")
    assert waited['{le="2.5",registry="docker.io"}'] == 0
    assert waited['{le="5.0",registry="docker.io"}'] == 1
    labels = '{endpoint="hub",method="GET",registry="docker.io"}'
    assert process.numbers("upstream_first_byte_seconds_sum") == {labels: 0.3}


def test_what_was_fetched_ahead_is_counted_and_what_of_it_was_of_use() -> None:
    process = Counting()
    process.emit(Prefetched(REDIS, LAYER, 1000))
    process.emit(PrefetchRead(REDIS, LAYER, 400))
    assert process.numbers("prefetched_bytes_total") == {'{registry="docker.io"}': 1000}
    assert process.numbers("prefetched_read_bytes_total") == {'{registry="docker.io"}': 400}


def test_a_registry_is_down_when_all_endpoints_are_that_the_configuration_names() -> None:
    process = Counting()
    hub = '{registry="docker.io"}'

    def endpoints() -> tuple[float, float]:
        return (
            process.numbers("upstream_endpoints_down")[hub],
            process.numbers("upstream_endpoints")[hub],
        )

    for name in ("near", "hub", "hub"):
        process.emit(EndpointJoined(HUB, name))
    assert endpoints() == (0, 2)
    process.emit(BreakerSwitched(HUB, "near", "fault", True))
    process.emit(BreakerSwitched(HUB, "near", "wrong", True))
    process.emit(BreakerSwitched(HUB, "hub", "limited", True))
    process.emit(BreakerSwitched(HUB, "near", "fault", False))
    assert endpoints() == (1, 2)
    process.emit(BreakerSwitched(HUB, "hub", "fault", True))
    process.emit(BreakerSwitched("a.client.named.it", "unconfigured", "fault", True))
    assert endpoints() == (2, 2)
    process.emit(EndpointLeft(HUB, "near"))
    assert endpoints() == (1, 1)
    assert list(process.numbers("upstream_endpoints")) == [hub]


def test_the_last_reload_counts_not_those_before() -> None:
    process = Counting()

    def taken() -> float:
        return process.numbers("config_last_reload_successful")[""]

    process.emit(ConfigLoaded(1000.0))
    assert taken() == 1
    for result, expected in (("refused", 0), ("applied", 1), ("failed", 0)):
        process.emit(ConfigReloaded(result))
        assert taken() == expected
    assert process.numbers("config_loaded_timestamp_seconds") == {"": 1000.0}


def test_upkeep_and_tag_memory_tell_how_they_are() -> None:
    process = Counting()
    process.emit(UpkeepEnded("scrub", 1000.0, went_well=True))
    process.emit(UpkeepEnded("tidy", 2000.0, went_well=False))
    assert process.numbers("upkeep_last_run_timestamp_seconds") == {
        '{result="ok",work="scrub"}': 1000.0,
        '{result="failed",work="tidy"}': 2000.0,
    }
    process.emit(TagStoreSwitched("redis", "reach", works=False))
    process.emit(TagStoreSwitched("redis", "write", works=True))
    failing = process.numbers("tag_store_failing")
    assert failing == {
        '{ability="reach",store="redis"}': 1.0,
        '{ability="write",store="redis"}': 0.0,
    }


def test_it_is_told_how_many_clients_are_connected() -> None:
    process = Counting()
    process.metrics.watch_connections(lambda: 7)
    assert process.numbers("connections") == {"": 7.0}


def test_prometheus_own_linter_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: install Debian's prometheus")
    process = Counting()
    process.emit(answered("blob", "hit"))
    process.metrics.watch(lambda: Usage(10, 2, 5, 100), lambda: Disk(90, 7))
    process.metrics.watch_workers(lambda: {0: os.getpid()})
    done = subprocess.run(
        [promtool, "check", "metrics"], input=process.metrics.exposition(), capture_output=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_each_metric_says_what_it_is_and_is_of_use_for() -> None:
    told = [line.split(" ", 3) for line in Counting().lines() if line.startswith("# HELP ")]
    assert len(told) > 40
    for _, _, name, words in told:
        assert len(words) > 25, name
