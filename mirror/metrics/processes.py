"""The mirror itself: its processes, its configuration, its log.

`process_*` have the names that Prometheus' client libraries give them everywhere, so that panels
and alerts for any program know them. They are of the whole mirror, as the one scraped target:
processor time and memory of all its processes together, descriptors of the process that has most,
and the start of the first. What each worker takes is in `registry_mirror_worker_*`.
"""

from __future__ import annotations

import platform

from prometheus_client import Counter, Gauge

from .. import __version__
from ..contracts.events import CertificateShown, ConfigLoaded, ConfigReloaded, WorkerReplaced
from ..logs import lines_dropped
from ..process_use import sampler
from .instruments import Instruments


def count(make: Instruments) -> None:
    make.gauge(
        "build_info",
        "1; its labels say which version of the mirror runs, and on which Python",
        "version",
        "python",
        of_many="max",
    ).labels(__version__, platform.python_version()).set(1)
    _configuration(make)
    _log(make)
    _use(make)
    replaced = make.counter(
        "workers_replaced",
        "Worker processes that were replaced, by why: they died, or were ended as they hung. Their "
        "clients were cut off",
        "why",
    )
    for why in ("died", "hung"):
        replaced.labels(why)
    make.events.listen(WorkerReplaced, lambda event: replaced.labels(event.why).inc())


def connections(make: Instruments) -> Gauge:
    return make.gauge(
        "connections",
        "Connections of clients that are open on the mirror's port, idle ones too",
        of_many="livesum",
    )


def spans(make: Instruments) -> tuple[Counter, Counter]:
    """Sent and dropped."""
    sent = make.counter("spans_sent", "Spans of traces that the collector has taken (tracing)")
    dropped = make.counter(
        "spans_dropped",
        "Spans of traces that were lost: the collector does not answer, or is slower than they "
        "come. Pulls do not wait for it",
    )
    return sent, dropped


def _configuration(make: Instruments) -> None:
    reloads = make.counter(
        "config_reloads",
        "Times that the configuration was read again, by result: applied, refused (it has "
        "mistakes; the one before counts on), failed (a part of the mirror has not taken it)",
        "result",
    )
    for result in ("applied", "refused", "failed"):
        reloads.labels(result)
    successful = make.gauge(
        "config_last_reload_successful",
        "1 when the last reload of the configuration was applied, or there was none yet; else 0: "
        "what runs is not what mirror.yaml says",
        of_many="max",
    )
    loaded = make.gauge(
        "config_loaded_timestamp_seconds",
        "When the configuration that runs was read, in Unix time",
        of_many="max",
    )

    def was_loaded(event: ConfigLoaded) -> None:
        loaded.set(event.at)
        successful.set(1)

    def was_reloaded(event: ConfigReloaded) -> None:
        reloads.labels(event.result).inc()
        successful.set(event.result == "applied")

    make.events.listen(ConfigLoaded, was_loaded)
    expires = make.gauge(
        "tls_certificate_expires_seconds",
        "When the certificate ends that clients are shown, in Unix time; 0 where the mirror speaks "
        "no TLS. A renewed one is read at a reload",
        of_many="livemax",
    )
    make.events.listen(CertificateShown, lambda event: expires.set(event.expires))
    make.events.listen(ConfigReloaded, was_reloaded)


def _log(make: Instruments) -> None:
    make.follow(
        make.counter(
            "log_lines_dropped",
            "Lines of the log that could not be written: nobody reads standard error, or its disk "
            "is full. Pulls do not wait for the log",
        ),
        lambda: lines_dropped(),
    )
    make.follow(
        make.counter(
            "listener_failures",
            "Events that a part of the mirror failed to take: a defect of the mirror, to be "
            "reported with the log's line listener_failed",
        ),
        lambda: make.events.failures,
    )


def _use(make: Instruments) -> None:
    sample = sampler()
    make.follow(
        make.counter(
            "process_cpu_seconds",
            "Processor time of the mirror in seconds, of all its processes together, also of "
            "those that have ended",
            prefix="",
        ),
        lambda: sample().cpu_seconds,
    )
    resident = make.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the mirror in bytes, of all its processes together",
        of_many="livesum",
        prefix="",
    )
    virtual = make.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory of the mirror in bytes, of all its processes together",
        of_many="livesum",
        prefix="",
    )
    descriptors = make.gauge(
        "process_open_fds",
        "File descriptors that are open in that process of the mirror which has most",
        of_many="livemax",
        prefix="",
    )
    limit = make.gauge(
        "process_max_fds",
        "How many file descriptors a process of the mirror may have open",
        of_many="livemax",
        prefix="",
    )
    started = make.gauge(
        "process_start_time_seconds",
        "When the mirror was started, in Unix time: its first process, with workers their parent",
        of_many="livemin",
        prefix="",
    )

    def look() -> None:
        use = sample()
        resident.set(use.resident_bytes)
        virtual.set(use.virtual_bytes)
        descriptors.set(use.open_fds)
        limit.set(use.max_fds)
        started.set(use.started)

    look()  # also for what is told before the first scrape
    make.at_each_scrape(look)
