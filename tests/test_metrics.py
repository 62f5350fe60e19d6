"""What operators see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mirror.interfaces import Usage
from mirror.metrics import Metrics

COUNTING = """
import sys
from mirror.metrics import Metrics
metrics = Metrics()
metrics.fill_started()
metrics.upstream_bytes("registry-1.docker.io", 1000)
metrics.answered("blob", "filled", 200, 0.01, 0.2)
"""


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


def test_several_processes_count_together_and_the_dead_run_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    pids = []
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", COUNTING], env=environment)
        assert child.wait(60) == 0
        pids.append(child.pid)
    metrics = Metrics(str(tmp_path))
    lines = metrics.exposition().decode().splitlines()
    assert 'registry_mirror_upstream_bytes_total{endpoint="registry-1.docker.io"} 2000.0' in lines
    assert "registry_mirror_fills_running 2.0" in lines
    metrics.forget(pids[0])
    lines = metrics.exposition().decode().splitlines()
    assert "registry_mirror_fills_running 1.0" in lines
    assert 'registry_mirror_upstream_bytes_total{endpoint="registry-1.docker.io"} 2000.0' in lines
