"""Endpoints of registries that die, come back, and have moods; and the chaos that visits them.

They live in the test's own event loop, each at an address of its own: one that is dead refuses
connections, and comes back where it was.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from ..fakes.hub import Hub, page, status
from .images import Image
from .programs import loopback_address

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Mood = Callable[["Endpoint", web.Request, Handler], Awaitable[web.StreamResponse]]

# Seconds. How long a mood lasts, how long the next endpoint that all may count on has been well
# before the last one may fall, and what a 429 asks for.
LASTS = (0.1, 3.0)
HANDOVER = 2.0
RETRY_AFTER = 1

MOODY = 0.8  # of the requests: the others are answered as they should be
PIECE = 64 << 10
SLOW = 0.02  # seconds for each piece


async def fair(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


async def breaks(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    return web.Response(status=500, text="oops")


async def limits(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    endpoint.limits_until = asyncio.get_running_loop().time() + RETRY_AFTER
    return web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER)})


async def lacks(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    return await _always(status(404), request)


async def pages(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    return await _always(page(), request)


async def stalls(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Says nothing, or not all of it, until the mood has passed."""
    answer = await handler(request)
    if isinstance(answer, web.Response) and endpoint.chance.random() < 0.5:
        return await _part(endpoint, request, answer, endpoint.passed)
    await endpoint.passed.wait()
    return _closed(request)


async def cuts(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = await handler(request)
    if isinstance(answer, web.Response):
        return await _part(endpoint, request, answer)
    return _closed(request)


async def dawdles(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = await handler(request)
    if not isinstance(answer, web.Response) or request.method == "HEAD":
        return answer
    body = _body(answer)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    for offset in range(0, len(body), PIECE):
        await response.write(body[offset : offset + PIECE])
        await asyncio.sleep(SLOW)
    return response


async def lies(endpoint: Endpoint, request: web.Request, handler: Handler) -> web.StreamResponse:
    """One bit of a manifest or blob is another. All that is said of them stays true."""
    answer = await handler(request)
    if not isinstance(answer, web.Response) or not endpoint.may_lie_of(request):
        return answer
    wrong = bytearray(_body(answer))
    if answer.status not in (200, 206) or not wrong:
        return answer
    wrong[endpoint.chance.randrange(len(wrong))] ^= 1
    return web.Response(status=answer.status, headers=answer.headers, body=bytes(wrong))


MOODS: tuple[Mood, ...] = (breaks, limits, lacks, pages, stalls, cuts, dawdles, lies)


class Endpoint(Hub):
    """A small Docker Hub at an address of its own, that dies when it is told to.

    It never lies of a blob of `honest_from` bytes or more.
    """

    def __init__(self, chance: random.Random, honest_from: float = math.inf) -> None:
        super().__init__()
        self.chance = chance
        self.honest_from = honest_from
        self.challenge = chance.choice(("bearer", "bearer", "none"))
        self.redirects = chance.random() < 0.7
        self.mood: Mood = fair
        self.passed = asyncio.Event()  # the present mood has
        self.limits_until = 0.0  # the loop's time
        self.alive = True
        self._address = loopback_address()
        self._port = 5000

    async def _serve(self, server: str, handler: Handler) -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            moody = self.chance.random() < MOODY
            return await (self.mood if moody else fair)(self, request, handler)

        url = f"http://{self._address}:{self._port + len(self._runners)}"
        await super()._serve(server, answer)
        await self._close(self._runners[-1])
        await self._open(len(self._runners) - 1)
        return url

    async def die(self) -> None:
        """Cuts what it was about to say. From now on it refuses connections."""
        self.alive = False
        self._passes()
        for runner in self._runners:
            await self._close(runner)

    async def feel(self, mood: Mood) -> None:
        """From now on it is like this; alive again if it was dead, and has forgotten its tokens."""
        self._passes()
        self.mood = mood
        if not self.alive:
            self.alive = True
            self.revoke_tokens()
            for number in range(len(self._runners)):
                await self._open(number)

    def may_lie_of(self, request: web.Request) -> bool:
        _, kind, what = request.path.rsplit("/", 2)
        if kind in ("blobs", "data"):
            return len(self.blobs.get(what, b"")) < self.honest_from
        return kind == "manifests"

    def _passes(self) -> None:
        self.passed.set()
        self.passed = asyncio.Event()

    async def _open(self, number: int) -> None:
        await web.TCPSite(self._runners[number], self._address, self._port + number).start()

    async def _close(self, runner: web.AppRunner) -> None:
        for site in [*runner.sites]:
            await site.stop()
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()


class Registry:
    """Some endpoints that carry the same. One that is trusted with tags can be counted on at any
    time; which one it is changes."""

    def __init__(self, name: str, trusted: Sequence[Endpoint], others: Sequence[Endpoint]) -> None:
        self.name = name
        self.trusted = trusted
        self.others = others
        self.strikes: list[tuple[float, str, str]] = []

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return (*self.trusted, *self.others)

    def configuration(self) -> dict[str, object]:
        """Its part of the mirror's configuration. A tag is fresh for a millisecond: so every pull
        asks for it again."""
        trusts = [*["tags"] * len(self.trusted), *["content"] * len(self.others)]
        return {
            "endpoints": [
                {"url": endpoint.url, "trust": trust}
                for endpoint, trust in zip(self.endpoints, trusts, strict=True)
            ],
            "freshness": {"ttl": "1ms", "stale": "24h"},
        }

    def publish(self, image: Image, repository: str, tag: str) -> None:
        for endpoint in self.endpoints:
            endpoint.blobs.update(image.blobs)
            for digest, data in image.manifests.items():
                kind = "index" if digest == image.digest else "manifest"
                endpoint.add_manifest(repository, None, data, image.media_types[kind])
            endpoint.tags[repository][tag] = image.digest

    async def suffer(self, chance: random.Random) -> None:
        """Chaos, until it is cancelled."""
        while True:
            steward = chance.choice(self.trusted)
            await self._strike(steward, fair)
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(HANDOVER, steward.limits_until - loop.time()))
            for _ in range(chance.randint(3, 12)):
                victim = chance.choice([one for one in self.endpoints if one is not steward])
                await self._strike(victim, chance.choice((None, None, fair, fair, *MOODS)))
                await asyncio.sleep(chance.uniform(*LASTS))

    async def _strike(self, endpoint: Endpoint, mood: Mood | None) -> None:
        """`mood` None: it dies."""
        word = mood.__name__ if mood else "dies"
        self.strikes.append((asyncio.get_running_loop().time(), endpoint.url, word))
        if mood is None:
            await endpoint.die()
        else:
            await endpoint.feel(mood)


async def _always(
    fault: Callable[[web.Request], Awaitable[web.StreamResponse | None]], request: web.Request
) -> web.StreamResponse:
    answer = await fault(request)
    assert answer is not None
    return answer


async def _part(
    endpoint: Endpoint,
    request: web.Request,
    answer: web.Response,
    until: asyncio.Event | None = None,
) -> web.StreamResponse:
    """Some of the body, then nothing until the event, then the end of the connection."""
    body = _body(answer)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    if request.method != "HEAD":
        await response.write(body[: endpoint.chance.randint(0, len(body))])
        if until is not None:
            await until.wait()
    return _closed(request, response)


def _closed(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()


def _body(answer: web.Response) -> bytes:
    assert answer.body is None or isinstance(answer.body, bytes)
    return answer.body or b""
