"""What is not counted, but looked at when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..contracts.content import Usage
from ..process_use import of_process
from .instruments import PREFIX


class Disk(Protocol):
    """What a file system has, and has left, in bytes."""

    @property
    def total(self) -> int: ...
    @property
    def free(self) -> int: ...


class Store(Collector):
    def __init__(self, usage: Callable[[], Usage], disk: Callable[[], Disk]) -> None:
        self._usage = usage
        self._disk = disk

    def collect(self) -> Iterator[Metric]:
        usage = self._usage()
        for name, words, value in (
            ("cache_bytes", "Bytes of verified content in the cache", usage.content_bytes),
            (
                "cache_entries",
                "Pieces of verified content in the cache: blobs and manifests",
                usage.entries,
            ),
            (
                "cache_reserved_bytes",
                "Bytes set aside for downloads that run or wait to be resumed",
                usage.reserved_bytes,
            ),
            (
                "cache_max_bytes",
                "The configured size of the cache (storage.max_size), which content and what is "
                "reserved never exceed",
                usage.max_bytes,
            ),
        ):
            yield GaugeMetricFamily(PREFIX + name, words, value=value)
        with suppress(OSError):
            disk = self._disk()
            yield GaugeMetricFamily(
                f"{PREFIX}cache_disk_free_bytes",
                "Bytes that are free for the mirror's user on the file system of the cache. Below "
                "what is being pulled, blobs are passed on without being kept",
                value=disk.free,
            )
            yield GaugeMetricFamily(
                f"{PREFIX}cache_disk_bytes",
                "Size in bytes of the file system of the cache",
                value=disk.total,
            )


class Workers(Collector):
    """What each worker takes of the machine, as the parent sees it: also of one that hangs."""

    def __init__(self, pids: Callable[[], Mapping[int, int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            f"{PREFIX}worker_cpu_seconds",
            "Processor time of a worker process, in seconds; begins anew when it is replaced",
            labels=["worker"],
        )
        resident, fds, started = (
            GaugeMetricFamily(f"{PREFIX}worker_{name}", words, labels=["worker"])
            for name, words in (
                ("resident_memory_bytes", "Memory of a worker process, in bytes"),
                ("open_fds", "File descriptors that a worker process has open"),
                (
                    "start_time_seconds",
                    "When a worker process was started, in Unix time; changes when it is replaced",
                ),
            )
        )
        for number, pid in sorted(self._pids().items()):
            use = of_process(pid)
            if use is None:  # it has just ended
                continue
            labels = [str(number)]
            cpu.add_metric(labels, use.cpu_seconds)
            resident.add_metric(labels, use.resident_bytes)
            fds.add_metric(labels, use.open_fds)
            started.add_metric(labels, use.started)
        yield from (cpu, resident, fds, started)
