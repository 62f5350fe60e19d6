"""The section `tracing`: where traces go, and of how many requests."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from . import places, values
from .problems import Mistake
from .section import Read, Section

EXTRA = "opentelemetry.exporter.otlp.proto.http"


def collector(value: object) -> str:
    """The collector's URL. Raises Mistake also where the extra is not installed."""
    url = places.collector_url(value)
    try:
        found = find_spec(EXTRA)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise Mistake(
            "no OpenTelemetry in this installation",
            "pip install 'registry-mirror[otel]' first, or leave tracing out",
        )
    return url


class TracingConfig(Section):
    """`otlp`: a collector that takes OTLP over HTTP. `sample`: the share of pulls that are traced;
    of those whose client says whether to record them, all that it wants, and no other."""

    otlp: Annotated[str, Read(collector)]
    sample: Annotated[float, Read(values.share)] = 0.1
