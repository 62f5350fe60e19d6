"""What an answer from the response cache costs, without its socket: CPU µs for each.

    .venv/bin/python -m bench.hits

32 clients ask for 8 manifests, with so many answers a flush of the access log. All that listens to
them in a mirror does so here. Another checkout is measured by PYTHONPATH=/there; compare the least
of several runs that take turns.
"""

from __future__ import annotations

import asyncio
import gc
import time
from unittest.mock import Mock

from aiohttp import hdrs

from mirror.activity.watching import Watch
from mirror.app.catalogue import CatalogueListener
from mirror.clock import Clock
from mirror.contracts.context import RequestContext
from mirror.events import Events
from mirror.metrics import Metrics
from mirror.server.http.networks import network_of
from mirror.server.http.public_answers import Asked, public_answer
from mirror.server.http.response_cache import ResponseCache
from mirror.server.v2.access_log import AccessLog
from mirror.server.v2.target import TargetKind

CLIENTS, MANIFESTS, HITS, RUNS = 32, 8, 2048, 15
TOGETHER = (1, 8, 64)


def put(table: ResponseCache, repository: str, digest: str) -> bytes:
    """The request that it is the answer to."""
    target = f"/v2/{repository}/manifests/{digest}"
    asked = Asked(target, "mirror:5000", TargetKind.MANIFEST, "docker.io", repository, digest)
    headers = {hdrs.ETAG: f'"{digest}"'}
    answer = public_answer(RequestContext("", ""), asked, headers, b"x" * 1000, headers)
    assert answer is not None
    table.put(answer)
    fields = "Host: mirror:5000\r\nUser-Agent: containerd/1.7\r\nAccept: */*"
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


async def measure(together: int) -> float:
    events, clock = Events(), Clock()
    Metrics(events, ["docker.io"])
    CatalogueListener(Mock(), events, clock)
    watch = Watch(events, clock, network_of)
    table = ResponseCache(AccessLog(lambda text: None, events))
    clients = [f"10.0.0.{number}" for number in range(CLIENTS)]
    took = []
    for _ in range(RUNS):
        asked = [put(table, f"library/i{n}", f"sha256:{n:064x}") for n in range(MANIFESTS)]
        began = time.process_time()
        for start in range(0, HITS, together):
            for number in range(start, start + together):
                data = asked[(number * 7 + number // CLIENTS) % MANIFESTS]
                assert table.answer(data, clients[number % CLIENTS]) is not None
            await asyncio.sleep(0)
        took.append((time.process_time() - began) / HITS * 1e6)
        watch.news()
    return min(took)


async def main() -> None:
    gc.freeze()
    for together in TOGETHER:
        print(f"{together:3} a flush: {await measure(together):6.2f} µs")


if __name__ == "__main__":
    asyncio.run(main())
