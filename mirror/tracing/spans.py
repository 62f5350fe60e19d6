"""Which requests are traced, and what belongs to one trace."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping

from cachetools import TTLCache
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from .. import __version__
from ..clock import Clock
from ..contracts.tracing import Asked, Attribute, Span
from ..frozen import dataclass
from .exporting import Exporter

_MOST_STEPS = 500  # of one request: what it has set off may go on for long,
_STEPS_WITHIN = 3600.0  # and of what begins so many seconds later, none is its step
_TOGETHER = 30.0  # seconds from one request of a pull to the next one
_LONGEST = 600.0  # seconds that requests are taken for one pull
_MOST_PULLS = 10_000
_MINUTE = 60.0

# W3C Trace Context: version 00, and the first four fields of any later one.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_TRACEPARENT = 256


def parent_of(traceparent: str) -> SpanContext | None:
    """What a client's header says; None where it is none, or is not well formed."""
    if len(traceparent) > _LONGEST_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    flags = TraceFlags(int(match[4], 16) & TraceFlags.SAMPLED)
    found = SpanContext(int(match[2], 16), int(match[3], 16), is_remote=True, trace_flags=flags)
    return found if found.is_valid else None


@dataclass(frozen=True, slots=True)
class _Pull:
    first: SpanContext
    began: float


class _Ids(RandomIdGenerator):
    """`next` is the id of the next trace, where it is not 0."""

    next = 0

    def generate_trace_id(self) -> int:
        return self.next or super().generate_trace_id()


class OtelTracer:
    """Requests of one client for one repository that follow each other closely are one pull, and
    one trace: clients ask for a manifest and each layer by itself. A client's `traceparent` goes
    before that, with its decision whether to record. Close it.

    The id of a pull's trace is made of who pulls what, and the minute: so workers that each have a
    part of its connections tell of the same trace, and draw it or not alike. `mirror` is the same
    for them, and no other mirror's of this node.
    """

    def __init__(self, url: str, sample: float, clock: Clock, mirror: str) -> None:
        self.exporter = Exporter(url)
        self._clock = clock
        self._ids = _Ids()
        self._service = f"{platform.node()} {mirror}"
        self._provider = TracerProvider(
            id_generator=self._ids,
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=Resource(
                {
                    "service.name": "registry-mirror",
                    "service.version": __version__,
                    "service.instance.id": f"{platform.node()}-{os.getpid()}",
                    "process.pid": os.getpid(),
                }
            ),
            span_limits=SpanLimits(max_span_attributes=32, max_span_attribute_length=256),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self.exporter)
        self._tracer = self._provider.get_tracer("registry-mirror", __version__)
        self._pulls: TTLCache[tuple[str, str, str], _Pull] = TTLCache(
            _MOST_PULLS, _TOGETHER, clock.monotonic
        )

    def close(self) -> None:
        """Blocking, for a moment at most."""
        self._provider.shutdown()

    def request(self, asked: Asked) -> Span | None:
        remote = parent_of(asked.traceparent) if asked.traceparent else None
        key = asked.client, asked.registry, asked.repository
        now = self._clock.monotonic()
        pull = self._pulls.get(key) if remote is None and asked.repository else None
        if pull is not None and now - pull.began > _LONGEST:
            pull = None
        parent = remote or (pull.first if pull else None)
        self._ids.next = self._id_of(key) if asked.repository else 0
        span = self._tracer.start_span(asked.name, _within(parent), SpanKind.SERVER)
        if remote is None and asked.repository:
            self._pulls[key] = pull or _Pull(span.get_span_context(), now)
        return (
            None
            if not span.is_recording()
            else _Step(self._tracer, span, _Steps(_MOST_STEPS, now + _STEPS_WITHIN, self._clock))
        )

    def _id_of(self, pull: tuple[str, str, str]) -> int:
        minute = int(self._clock.wall() // _MINUTE)
        words = " ".join((self._service, str(minute), *pull))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:16], "big")


@dataclass(slots=True)
class _Steps:
    left: int
    until: float  # monotonic
    clock: Clock

    def take(self) -> bool:
        """Whether there may be one more."""
        self.left -= 1
        return self.left >= 0 and self.clock.monotonic() < self.until


class _Step:
    """A span that is recorded."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, steps: _Steps) -> None:
        self._tracer = tracer
        self._span = span
        self._steps = steps

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def child(self, name: str, attributes: Mapping[str, Attribute], *, is_client: bool) -> Span:
        if not self._steps.take():
            return _Step(self._tracer, trace.INVALID_SPAN, self._steps)
        kind = SpanKind.CLIENT if is_client else SpanKind.INTERNAL
        context = _within(self._span.get_span_context())
        span = self._tracer.start_span(name, context, kind, attributes=attributes)
        return _Step(self._tracer, span, self._steps)

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes(attributes)

    def end(self, error: str = "") -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _within(parent: SpanContext | None) -> Context:
    """Never what OpenTelemetry itself takes for current."""
    if parent is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())
