"""The registry that a fleet mirrors: as slow as it is told to be, and it counts what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter

from aiohttp import web

from ...e2e.images import Image
from ...fakes.hub import Hub
from ..bodies import asked_range
from ..client import digest_of

_PIECE = 1 << 16  # bytes
REPOSITORY = "library/app"


class Origin(Hub):
    """Every node asks at a URL of its own: so it is known who has asked.

    `speed`: bytes a second of all its answers together. `requests_of` and `bytes_of` count GETs of
    blobs and what was sent of them, by digest; `asked_by`: who began them, in turn.
    """

    def __init__(self, speed: float = 30e6) -> None:
        super().__init__()
        self.challenge, self.redirects = "none", False
        self.speed = speed
        self.requests_of: Counter[str] = Counter()
        self.bytes_of: Counter[str] = Counter()
        self.ranges: list[tuple[str, int, int, int]] = []
        self.asked_by: dict[str, list[int]] = {}
        self._nodes = 0
        self._due = 0.0  # when the next piece may go

    async def for_node(self) -> str:
        """The URL at which the next node asks."""
        number, self._nodes = self._nodes, self._nodes + 1

        async def handle(request: web.Request) -> web.StreamResponse:
            digest = request.path.rpartition("/")[2]
            if request.method == "GET" and digest in self.blobs:
                self.asked_by.setdefault(digest, []).append(number)
                return await self._slowly(request, digest)
            return await self._registry(request)

        return await self.serve(f"node {number}", handle)

    def sent(self, digest: str) -> float:
        """How many times the whole of it was sent."""
        return self.bytes_of[digest] / max(1, len(self.blobs[digest]))

    def blob(self, size: int, seed: int | str, tag: str = "") -> str:
        """A new layer, as the only one of an image; its digest."""
        data = random.Random(seed).randbytes(size)
        digest = digest_of(data)
        self.add_image(REPOSITORY, tag or digest[7:19], data)
        return digest

    def publish(self, image: Image, repository: str, tag: str = "latest") -> None:
        self.blobs |= image.blobs
        for data in image.manifests.values():
            self.add_manifest(repository, None, data, json.loads(data)["mediaType"])
        self.tags[repository][tag] = image.digest

    async def _slowly(self, request: web.Request, digest: str) -> web.StreamResponse:
        data = self.blobs[digest]
        self.requests_of[digest] += 1
        start, stop = asked_range(request, data)
        self.ranges.append((digest, self.asked_by[digest][-1], start, stop or len(data)))
        response = web.StreamResponse(status=206 if stop else 200)
        if stop:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        stop = stop or len(data)
        response.content_length = stop - start
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):  # the node was killed
            await response.prepare(request)
            for at in range(start, stop, _PIECE):
                piece = data[at : min(at + _PIECE, stop)]
                await response.write(piece)
                self.bytes_of[digest] += len(piece)
                # What was late is made up for, as far as that is 50 ms.
                self._due = max(self._due, loop.time() - 0.05) + len(piece) / self.speed
                await asyncio.sleep(self._due - loop.time())
        return response
