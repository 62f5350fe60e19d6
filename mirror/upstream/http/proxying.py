"""How one proxy is spoken to: with which login, and which answers are its own."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import aiohttp
from pydantic import SecretStr

from ...threads import aside
from ..proxies import Proxy
from .words import RefusedByProxy

# Refusals, and what a proxy says that does not reach who was asked by it.
_OWN = frozenset((403, 500, 502, 503, 504))


class ProxyLogins:
    """The passwords as their files had them when they were last read."""

    def __init__(self) -> None:
        self._read: dict[Proxy, SecretStr] = {}

    def header(self, proxy: Proxy) -> Mapping[str, str]:
        """Proxy-Authorization (RFC 9110, 11.7.2), where there is a login."""
        password = self._read.get(proxy, proxy.password)
        if proxy.username is None or password is None:
            return {}
        login = f"{proxy.username}:{password.get_secret_value()}".encode()
        return {"Proxy-Authorization": "Basic " + base64.b64encode(login).decode("ascii")}

    async def read_again(self, proxy: Proxy) -> bool:
        """Whether the password, which the proxy has refused, is another one by now."""
        read = await aside(proxy.again) if proxy.again is not None else None
        if read is None or read == self._read.get(proxy, proxy.password):
            return False
        self._read[proxy] = read
        return True


def raise_own_answer(response: aiohttp.ClientResponse) -> None:
    """Raises RefusedByProxy where an answer to a request in absolute form is the proxy's, not the
    registry's. 407 always is. Of the others nothing in HTTP tells it; but squid says that an error
    is its own, and tinyproxy who it is; RFC 9209 has a header that few send."""
    status, headers = response.status, response.headers
    if status == 407:
        raise RefusedByProxy(status, ", ".join(headers.getall("Proxy-Authenticate", [])))
    is_own = (
        "X-Squid-Error" in headers
        or headers.get("Server", "").startswith("tinyproxy")
        or "error=" in headers.get("Proxy-Status", "")
    )
    if is_own and status in _OWN:
        raise RefusedByProxy(status)
