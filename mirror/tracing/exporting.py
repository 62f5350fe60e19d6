"""Spans leave behind: by a thread, from a bounded queue, which drops what it has no room for."""

from __future__ import annotations

import logging
import threading
from collections import deque
from itertools import islice

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

log = structlog.get_logger()

_MOST = 4096  # spans that wait
_BATCH = 512
_PAUSE = 1.0  # seconds between two batches
_WITHIN = 5.0  # seconds that a collector has to take a batch, tries included
_AT_END = 2.0  # seconds for the last batch
_PATH = "/v1/traces"  # OTLP/HTTP: below the collector's own path


class Exporter(SpanProcessor):
    """Gives spans that have ended to a collector. Whoever ends a span never waits for that."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.dropped = 0
        # Its own words would come with each batch that fails: that is said once here.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        session.trust_env = False  # HTTP_PROXY is the way to registries
        session.headers["Connection"] = "close"  # no socket rests while nothing is traced
        url = url if url.endswith(_PATH) else url.rstrip("/") + _PATH
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_WITHIN, session=session)
        self._waiting: deque[ReadableSpan] = deque()
        self._stopped = threading.Event()
        self._fails = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._waiting) >= _MOST:
            self.dropped += 1
        else:
            self._waiting.append(span)

    def shutdown(self) -> None:
        """Sends what waits, but for a moment only. Blocking."""
        self._stopped.set()
        self._thread.join(_AT_END)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True

    # What follows is the thread's.

    def _run(self) -> None:
        while not self._stopped.wait(_PAUSE):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, _BATCH))
            for _ in batch:
                self._waiting.popleft()
            self._send(batch)

    def _send(self, batch: list[ReadableSpan]) -> None:
        try:
            took = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # whatever it is, the next batch is tried
            took = False
        if took:
            self.sent += len(batch)
        else:
            self.dropped += len(batch)
        if took == self._fails:
            self._fails = not took
            if took:
                log.info("traces_sent_again")
            else:
                log.warning("traces_not_sent", hint="see the collector of `tracing`; pulls go on")
