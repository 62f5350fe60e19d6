"""Traces of a mirror that runs, as a collector of OpenTelemetry has them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from ..e2e.programs import missing
from ..fakes.collector import Collector, attributes
from ..waiting import eventually
from .client import DOCKERD
from .house import PORT, House, Mirror

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LAYER = b"layer" * 1000


async def traced(house: House, url: str, sample: str = "100%", **keys: object) -> Mirror:
    house.hub.add_image("library/redis", "7", LAYER, b"another")
    return await house.mirror(tracing={"otlp": url, "sample": sample}, **keys)


def of_request(collector: Collector, mirror: Mirror, kind: str) -> list[str]:
    """The trace ids of the log's lines of this kind."""
    return [
        line["trace_id"]
        for line in mirror.events("request")
        if line["kind"] == kind and "trace_id" in line
    ]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_cold_pull_is_one_trace_from_the_client_to_the_upstream(
    house: House, tmp_path: Path, workers: int
) -> None:
    if missing("skopeo"):
        pytest.skip(missing("skopeo"))
    async with Collector() as collector:
        mirror = await traced(house, collector.url, workers=workers)
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false"),
                f"docker://{mirror.address}:{PORT}/library/redis:7",
                f"dir:{tmp_path / 'copy'}",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        await eventually(lambda: len(collector.named("fill")) == 3)
        await eventually(lambda: len(collector.named("GET blob")) == 3)
        if workers == 1:
            assert len({one.trace_id for one in collector.spans}) == 1
            assert [one.name for one in collector.roots()] == ["GET tag"]
        else:  # each connection may be another worker's; which minute it is they see for themselves
            minutes = {one.start_time_unix_nano // 60_000_000_000 for one in collector.spans}
            assert len({one.trace_id for one in collector.spans}) <= len(minutes)
        by_id = {one.span_id: one for one in collector.spans}
        for fill in collector.named("fill"):
            names = []
            while fill is not None:
                names.append(fill.name)
                fill = by_id.get(fill.parent_span_id)
            assert names[:3] == ["fill", "cache blob", "GET blob"]
        below = {
            (by_id[one.parent_span_id].name, one.name)
            for one in collector.spans
            if one.parent_span_id in by_id
        }
        assert below >= {
            ("GET tag", "cache tag"),
            ("GET tag", "cache manifest"),
            ("fill", "queue"),
            ("fill", "upstream blobs"),
            ("upstream blobs", "GET"),
            ("upstream token", "GET"),
        }
        (tag,) = collector.named("GET tag")
        said = attributes(tag)
        assert said["registry_mirror.repository"] == "library/redis"
        assert said["registry_mirror.registry"] == "docker.io"
        assert said["http.response.status_code"] == 200
        assert said["registry_mirror.outcome"] == "filled"
        assert attributes(collector.named("fill")[0])["registry_mirror.result"] == "committed"
        assert tag.trace_id.hex() in of_request(collector, mirror, "tag")
        assert all("traceparent" not in one.headers for one in house.hub.requests)


async def test_a_clients_trace_goes_on_here_and_its_decision_holds(house: House) -> None:
    async with Collector() as collector:
        mirror = await traced(house, collector.url)
        for flags in ("00", "01"):
            headers = {**DOCKERD, "traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
            await mirror.manifest("7", headers=headers)
        for hostile in ("x" * 5000, f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "00--"):
            await mirror.manifest("7", headers={**DOCKERD, "traceparent": hostile})
        await eventually(lambda: len(collector.named("GET tag")) == 5)
        of_client = [one for one in collector.spans if one.trace_id.hex() == TRACE]
        assert [one.parent_span_id.hex() for one in of_client if one.name == "GET tag"] == [SPAN]
        others = {one.trace_id for one in collector.spans} - {bytes.fromhex(TRACE)}
        assert len(others) == 1  # one client, one repository: one pull
        assert all("traceparent" not in one.headers for one in house.hub.requests)


async def test_a_collector_that_is_gone_holds_nothing_up_and_is_said_once(house: House) -> None:
    mirror = await traced(house, "http://127.0.0.1:9")
    for _ in range(3):
        assert (await mirror.manifest("7", headers={**DOCKERD, "traceparent": "x"})).status == 200
    await eventually(lambda: lost(mirror), 20)
    await eventually(lambda: mirror.events("traces_not_sent"))
    assert len(mirror.events("traces_not_sent")) == 1
    assert await mirror.metric("spans_sent_total") == 0


async def lost(mirror: Mirror) -> bool:
    return await mirror.metric("spans_dropped_total") >= 3


async def test_none_is_traced_that_was_not_drawn(house: House) -> None:
    async with Collector() as collector:
        mirror = await traced(house, collector.url, sample="0%")
        assert (await mirror.manifest("7")).status == 200
        headers = {**DOCKERD, "traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert (await mirror.manifest("7", headers=headers)).status == 200
        await eventually(lambda: collector.named("GET tag"))
        assert {one.trace_id.hex() for one in collector.spans} == {TRACE}
        assert [
            line.get("trace_id") for line in mirror.events("request") if line["kind"] == "tag"
        ] == [
            None,
            TRACE,
        ]
