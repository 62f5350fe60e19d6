"""A collector of traces: OTLP over HTTP, decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .servers import Servers


class Collector(Servers):
    """Use as a context. `status`: how it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.status = 200
        self.spans: list[Any] = []

    async def __aenter__(self) -> Self:
        self.url = await self.serve("collector", self._take)
        return self

    async def _take(self, request: web.Request) -> web.Response:
        assert request.path == "/v1/traces"
        batch = ExportTraceServiceRequest.FromString(await request.read())
        if self.status == 200:
            for resource in batch.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def roots(self) -> Iterator[Any]:
        """Spans whose parent is not here."""
        known = {span.span_id for span in self.spans}
        return (span for span in self.spans if span.parent_span_id not in known)


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }
