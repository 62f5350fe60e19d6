"""What is counted, under Prometheus' names and units, and the events that feed it.

A new metric is one edit: it is made in the module of its subject, and what it listens to stands
beside it. Its help says what it counts, in which unit, and what it is of use for: it is what people
read first. Labels are from bounded sets only: registries that are not configured count as one, and
no metric has a client, a repository or a tag among its labels. Those are told by the command `top`,
the page of the admin port, and the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from ..contracts.content import Usage
from ..events import Events
from ..tallies import Journal, Key, Numbers, Together
from . import (
    ahead,
    answers,
    content,
    downloads,
    hosted,
    leases,
    peers,
    processes,
    upstreams,
    webhooks,
)
from .collected import Disk, Store, Workers
from .instruments import Instruments

__all__ = ["Disk", "Metrics"]


class Metrics:
    """Counts what `events` tell, for Prometheus to read. All but these registries, which may
    change meanwhile, count as one."""

    def __init__(self, events: Events, registries: Collection[str] = ()) -> None:
        self._make = Instruments(events, registries)
        self._journal = Journal(self._make.made)
        self._together = Together(self._make.registry, self._make.made, self._make.of_many)
        self._shown = CollectorRegistry()
        self._shown.register(self._together)
        self._connections = processes.connections(self._make)
        self._spans_sent, self._spans_dropped = processes.spans(self._make)
        for subject in (
            answers,
            downloads,
            ahead,
            content,
            upstreams,
            processes,
            hosted,
            webhooks,
            leases,
            peers,
        ):
            subject.count(self._make)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format: of this process, and of those that were heard."""
        self._make.look()
        return generate_latest(self._shown)

    def changes(self) -> Sequence[tuple[Key, Numbers]]:
        """What has changed here since this was last asked: for another process to `hear`."""
        self._make.look()
        return self._journal.changes()

    def hear(self, pid: int, changes: Sequence[Any]) -> None:
        """Another process counts along: its `changes`, as JSON has them."""
        self._together.hear(pid, changes)

    def forget(self, pid: int) -> None:
        """A process that counted along has died: what it had running runs no more."""
        self._together.forget(pid)

    def watch(self, usage: Callable[[], Usage], disk: Callable[[], Disk]) -> None:
        """Exports what this store holds, and what its disk has left, asked at each scrape. `disk`
        may raise OSError: then that is not exported."""
        self._make.registry.register(Store(usage, disk))

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Exports how many clients are connected, asked at each scrape."""
        self._make.at_each_scrape(lambda: self._connections.set(count()))

    def watch_spans(self, sent: Callable[[], int], dropped: Callable[[], int]) -> None:
        """Exports how many spans a collector has taken, and how many were lost on the way, asked at
        each scrape."""
        self._make.follow(self._spans_sent, sent)
        self._make.follow(self._spans_dropped, dropped)

    def watch_workers(self, pids: Callable[[], Mapping[int, int]]) -> None:
        """Exports what each worker takes of the machine: by its number, its pid, asked at each
        scrape."""
        self._make.registry.register(Workers(pids))
