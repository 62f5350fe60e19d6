"""What the page shows, again and again: made once a second for all browsers that look, and sent to
each as server-sent events (HTML Living Standard, 9.2).

Nothing is made while nobody looks. A browser that reads slowly misses what is replaced meanwhile,
holds up nobody, and is cut after `_PATIENCE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog
from aiohttp import hdrs, web

from ..browsing.failures import Refused
from ..http.networks import network_of

log = structlog.get_logger()

MOST = 64
MOST_OF_ONE = 12
"""Streams, in all and of one client: a browser opens six to one host (HTTP/1.1)."""

_BEAT = 15.0  # seconds without news after which a comment says that the stream lives
_PATIENCE = 30.0  # seconds that a browser has to take what is sent
_AT_LEAST = 1.0  # seconds between two pictures
_AGAIN = (
    5.0  # seconds after which the picture is made anew though nothing has happened: it has ages
)

Parts = Mapping[str, str]
"""The parts of the page by their names, as HTML."""


class Streams:
    """The places for streams, and their end."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self.ends = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self, request: web.Request) -> AsyncIterator[Stream]:
        """Raises Refused where there are too many."""
        client = network_of(request.remote or "")
        if self._of.total() >= MOST or self._of[client] >= MOST_OF_ONE:
            words = "too many pages of this mirror are open: close one"
            raise Refused(503, "TOO_MANY_STREAMS", words, retry_after=5)
        self._of[client] += 1
        try:
            response = web.StreamResponse(
                headers={
                    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
                    hdrs.CACHE_CONTROL: "no-store",
                    "X-Accel-Buffering": "no",  # nginx
                }
            )
            await response.prepare(request)
            yield Stream(response)
        finally:
            self._of[client] -= 1
            self._of += Counter()  # without those that have none

    async def end(self, _: web.Application | None = None) -> None:
        """All of them, at once."""
        self.ends.set()


class Stream:
    """One browser."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    async def tell(self, event: str, data: str, number: int | None = None) -> None:
        """Raises TimeoutError when the browser does not read, ConnectionError when it is gone."""
        lines = [] if number is None else [f"id: {number}"]
        # Names in it may hold any sign that ends a line in this format.
        lines += [f"event: {event}", *(f"data: {line}" for line in data.splitlines() or [""])]
        await self._write("\n".join(lines) + "\n\n")

    async def beat(self) -> None:
        await self._write(":\n\n")

    async def _write(self, text: str) -> None:
        async with asyncio.timeout(_PATIENCE):
            await self.response.write(text.encode("utf-8", "replace"))


class Picture:
    """The parts of the page as of now. `paint` makes them; `changed` is that of an Activity."""

    def __init__(
        self,
        paint: Callable[[], Awaitable[Parts]],
        changed: Callable[[int, float], Awaitable[int]],
        streams: Streams,
    ) -> None:
        self._paint = paint
        self._changed = changed
        self._streams = streams
        self._viewers = 0
        self._painting: asyncio.Task[None] | None = None
        self._number = 0
        self._parts: Parts = {}
        self._new = asyncio.Condition()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Until the browser leaves, or the mirror stops."""
        async with self._streams.open(request) as stream, self._looking():
            await self._follow(stream)
        return stream.response

    async def _follow(self, stream: Stream) -> None:
        shown: dict[str, str] = {}
        number = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while not self._streams.ends.is_set():
                if not await self._newer(number):
                    await stream.beat()
                    continue
                number, parts = self._number, self._parts
                for name, text in parts.items():
                    if shown.get(name) != text:
                        await stream.tell(name, text)
                        shown[name] = text

    async def _newer(self, number: int) -> bool:
        """Waits for another picture than that, for `_BEAT` at most; also for the end."""
        try:
            async with asyncio.timeout(_BEAT), self._new:
                await self._new.wait_for(
                    lambda: self._number != number or self._streams.ends.is_set()
                )
        except TimeoutError:
            return False
        return not self._streams.ends.is_set()

    @contextlib.asynccontextmanager
    async def _looking(self) -> AsyncIterator[None]:
        self._viewers += 1
        if self._painting is None:
            self._painting = asyncio.create_task(self._run(), name="the page")
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers and self._painting is not None:
                self._painting.cancel()
                self._painting = None

    async def _run(self) -> None:
        """While somebody looks."""
        loop = asyncio.get_running_loop()
        state = 0
        while True:
            begun = loop.time()
            try:
                self._parts = await self._paint()
                self._number += 1
                async with self._new:
                    self._new.notify_all()
                state = await self._changed(state, _AGAIN)
            except Exception:  # a defect: those who look see that nothing comes
                log.exception("page_not_made")
                await asyncio.sleep(_AGAIN)
            await asyncio.sleep(max(0.0, begun + _AT_LEAST - loop.time()))

    async def end(self, _: web.Application | None = None) -> None:
        await self._streams.end()
        async with self._new:
            self._new.notify_all()


def as_json(told: object) -> str:
    return json.dumps(told, separators=(",", ":"))
