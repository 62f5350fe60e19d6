"""The door: whether a request is for the mirror or for what is hosted, decided once and first.

The mirror's /v2/ never answers 401, since a Docker daemon meets a mirror's challenge with its
user's Docker Hub password; the hosted one has to, or nobody could log in. The path does not tell
them apart. So what is hosted has addresses of its own, or Host names at the mirror's.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web

from .http.listening import Handler
from .v2.naming import without_port


def is_hosted(host: str, names: Collection[str]) -> bool:
    """Whether a Host header (RFC 9110, 7.2) is one of these names, which are in lower case.

    >>> is_hosted("Registry.corp.lan:5000", {"registry.corp.lan"}), is_hosted("", {"a"})
    (True, False)
    """
    return without_port(host) in names


def by_host(mirror: Handler, hosted: Handler, names: Collection[str]) -> Handler:
    """The handler of the mirror's ports."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if is_hosted(request.headers.get(hdrs.HOST, ""), names):
            return await hosted(request)
        return await mirror(request)

    return handle
