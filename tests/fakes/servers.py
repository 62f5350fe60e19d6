"""HTTP servers in this process that note what they are asked, and fail when a test says so."""

from __future__ import annotations

import ssl
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass(frozen=True)
class Seen:
    """One request that came in. `server` is registry, realm or blobs."""

    server: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Servers:
    """Each request is recorded before it is answered, and faults are served in the order in which
    they were ordered, before anything else."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._runners: list[web.AppRunner] = []
        self.tls: ssl.SSLContext | None = None  # as `localhost`

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()

    def fail(self, server: str, fault: Fault, times: int = 1) -> None:
        """The next `times` requests to this server get the fault."""
        self._faults[server].extend([fault] * times)

    def mend(self) -> None:
        """No fault that was ordered is served any more."""
        self._faults.clear()

    def count(self, server: str, method: str | None = None, path: str = "") -> int:
        return len(self.seen(server, method, path))

    def seen(self, server: str, method: str | None = None, path: str = "") -> list[Seen]:
        return [
            one
            for one in self.requests
            if one.server == server and method in (None, one.method) and path in one.path
        ]

    async def serve(self, server: str, handler: Handler, address: str = "127.0.0.1") -> str:
        """Starts one of the servers, at any port; returns its URL."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests.append(
                Seen(server, request.method, request.path, request.query, request.headers)
            )
            if self._faults[server]:
                answer = await self._faults[server].popleft()(request)
                if answer is not None:
                    return answer
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, 0, ssl_context=self.tls).start()
        self._runners.append(runner)
        port = runner.addresses[0][1]
        return f"http://{address}:{port}" if self.tls is None else f"https://localhost:{port}"
