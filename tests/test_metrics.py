"""What operators see."""

from __future__ import annotations

import json
from typing import Any

from mirror.contracts.content import Usage
from mirror.metrics import Metrics


def test_what_happens_is_counted_under_its_labels() -> None:
    metrics = Metrics()
    metrics.answered("tag", "stale", 200, 0.001, 0.002)
    metrics.upstream_request("registry-1.docker.io", "HEAD", "429")
    metrics.watch(lambda: Usage(10, 2, 5, 100))
    shown = metrics.exposition().decode()
    for line in (
        'registry_mirror_requests_total{kind="tag",outcome="stale"} 1.0',
        'registry_mirror_responses_total{kind="tag",status="200"} 1.0',
        'registry_mirror_first_byte_seconds_count{kind="tag",outcome="stale"} 1.0',
        'registry_mirror_upstream_requests_total{endpoint="registry-1.docker.io",'
        'method="HEAD",status="429"} 1.0',
        "registry_mirror_cache_bytes 10.0",
        "registry_mirror_cache_reserved_bytes 5.0",
    ):
        assert line in shown.splitlines()


def told(metrics: Metrics) -> Any:
    """What another process hears of it."""
    return json.loads(json.dumps(metrics.changes()))


def lines(metrics: Metrics) -> list[str]:
    return metrics.exposition().decode().splitlines()


def test_several_processes_count_together_and_the_dead_run_nothing() -> None:
    shown, workers = Metrics(), {1: Metrics(), 2: Metrics()}
    for pid, worker in workers.items():
        worker.fill_started()
        worker.upstream_bytes("registry-1.docker.io", 1000)
        worker.answered("blob", "filled", 200, 0.01, 0.2)
        worker.upstream_breaker("registry-1.docker.io", "content", pid == 1)
        shown.hear(pid, told(worker))
    shown.content_rotten()
    both = 'registry_mirror_upstream_bytes_total{endpoint="registry-1.docker.io"} 2000.0'
    first_byte = 'registry_mirror_first_byte_seconds_bucket{kind="blob",le="%s",outcome="filled"}'
    open_breaker = (
        "registry_mirror_upstream_breaker_open"
        '{endpoint="registry-1.docker.io",trouble="content"} %s'
    )
    found = lines(shown)
    assert both in found
    assert "registry_mirror_fills_running 2.0" in found
    assert f"{first_byte % '0.005'} 0.0" in found
    assert f"{first_byte % '0.01'} 2.0" in found
    assert f"{first_byte % '+Inf'} 2.0" in found
    assert 'registry_mirror_last_byte_seconds_sum{kind="blob",outcome="filled"} 0.4' in found
    assert open_breaker % "1.0" in found
    assert "registry_mirror_content_rotten_total 1.0" in found  # its own
    shown.forget(1)
    found = lines(shown)
    assert both in found
    assert "registry_mirror_fills_running 1.0" in found
    assert f"{first_byte % '+Inf'} 2.0" in found
    assert open_breaker % "0.0" in found
    workers[2].upstream_bytes("registry-1.docker.io", 500)
    shown.hear(2, told(workers[2]))
    assert both.replace("2000", "2500") in lines(shown)


def test_of_a_number_that_several_know_the_one_that_was_heard_last_is_shown() -> None:
    shown, one, other = Metrics(), Metrics(), Metrics()
    one.upstream_quota("hub", "me", 100, 80)
    shown.hear(1, told(one))
    other.upstream_quota("hub", "me", 100, 60)
    shown.hear(2, told(other))
    left = 'registry_mirror_upstream_quota_remaining{endpoint="hub",login="me"} %s'
    assert left % "60.0" in lines(shown)
    one.upstream_quota("hub", "me", 100, 59)
    shown.hear(1, told(one))
    assert left % "59.0" in lines(shown)


def test_only_what_has_changed_is_told() -> None:
    metrics = Metrics()
    metrics.sent("blob", 10)
    assert ["registry_mirror_sent_bytes", ["blob"]] in [key for key, _ in told(metrics)]
    assert told(metrics) == []
    metrics.sent("blob", 5)
    assert told(metrics) == [[["registry_mirror_sent_bytes", ["blob"]], [15.0]]]
