"""One node looked at, for people."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable

import aiohttp
from aiohttp import hdrs

from ...frozen import dataclass
from ...oci.errors import quoted
from ...peering import NODE_PATH, Ask, Proof

_WITHIN = 5.0  # seconds
_MOST = 16 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Greeting:
    """`fault`: why the node is of no use, "" where it is. `is_there`: something answers. `skew`:
    seconds by which its clock is ahead. `store`: by which a node tells itself from others, "" where
    it does not say."""

    fault: str
    is_there: bool
    skew: float = 0.0
    store: str = ""


async def greeting(
    url: str, proof: Proof, tls: ssl.SSLContext | None, wall: Callable[[], float]
) -> Greeting:
    """Whether this node answers, and takes us for one of the fleet."""
    ask = Ask(hdrs.METH_GET, NODE_PATH)
    try:
        async with (
            asyncio.timeout(_WITHIN),
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(
                url + NODE_PATH,
                headers={hdrs.AUTHORIZATION: proof.of(ask, url)},
                allow_redirects=False,
                ssl=tls or True,
            ) as answer,
        ):
            return _read(answer.status, await answer.content.read(_MOST), wall())
    except TimeoutError:
        return Greeting(f"no answer within {_WITHIN:g} s", is_there=False)
    except aiohttp.ClientConnectorCertificateError as error:
        return Greeting(f"TLS: {error.certificate_error}", is_there=True)
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno or 0  # asyncio puts the address into its own words
        reason = os.strerror(number) if number > 0 else str(error.os_error)
        return Greeting(reason.lower(), is_there=False)
    except (aiohttp.ClientError, OSError) as error:
        return Greeting(f"no HTTP that can be read: {type(error).__name__}", is_there=True)


def _read(status: int, body: bytes, now: float) -> Greeting:
    try:
        found = json.loads(body)
        if status == 200:
            store = str(found.get("store", ""))
            return Greeting("", is_there=True, skew=float(found["at"]) - now, store=store)
        return Greeting(f"refuses: {quoted(str(found['error']), 300)}", is_there=True)
    except (ValueError, KeyError, TypeError):
        return Greeting(f"{status}, by what is no peer port", is_there=True)
