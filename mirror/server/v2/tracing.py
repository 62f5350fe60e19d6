"""The span of a request, from its head to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts.registry import Outcome
from ...contracts.tracing import Asked, Attribute, Tracer, enter
from .access_log import Exchange, product

HEADER = "traceparent"  # W3C Trace Context


def begins(tracer: Tracer, exchange: Exchange, headers: Mapping[str, str]) -> None:
    """To be called once it is known what is asked for."""
    exchange.span = tracer.request(
        Asked(
            f"{exchange.method} {exchange.kind.value}",
            headers.get(HEADER, ""),
            exchange.context.client,
            exchange.registry,
            exchange.repository,
        )
    )
    enter(exchange.span)
    if exchange.span is not None:
        exchange.span.set(
            _said(
                {
                    "http.request.method": exchange.method,
                    "client.address": exchange.client,
                    "user_agent.original": product(exchange.agent),
                    "container.image.name": exchange.repository,
                    "registry_mirror.registry": exchange.registry,
                    "registry_mirror.repository": exchange.repository,
                    "registry_mirror.reference": exchange.reference,
                    "registry_mirror.kind": exchange.kind.value,
                    "registry_mirror.request_id": exchange.context.request_id,
                }
            )
        )


def ends(exchange: Exchange) -> None:
    """It has been answered, or its client has left. The next request of the connection is the same
    task's."""
    span = exchange.span
    if span is None:
        return
    enter(None)
    failed = exchange.outcome is Outcome.FAILED and exchange.status is not None
    span.set(
        _said(
            {
                "http.response.status_code": exchange.status or 0,
                "http.response.body.size": exchange.sent,
                "oci.manifest.digest": exchange.digest,
                "registry_mirror.outcome": exchange.outcome.value,
                "registry_mirror.error": exchange.error,
            }
        )
    )
    span.end(str(exchange.status) if failed and (exchange.status or 0) >= 500 else "")


def _said(attributes: Mapping[str, Attribute]) -> Mapping[str, Attribute]:
    """Those that say anything."""
    return {name: value for name, value in attributes.items() if value}
