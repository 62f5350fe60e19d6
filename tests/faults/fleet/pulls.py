"""A client that resumes where it was cut, as dockerd and containerd do, and tells what it saw."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from ..client import DOCKERD
from .origin import REPOSITORY

TRIES = 5  # dockerd's
_BETWEEN = 0.3  # seconds between two of them; dockerd takes five


@dataclass
class Pull:
    """`first`: seconds until the first byte; `gap`: the longest pause between two bytes later on.
    `cuts`: what ended the tries before the last one. `error`: what ended the last one."""

    digest: str
    first: float = 0.0
    gap: float = 0.0
    took: float = 0.0
    came: int = 0
    cuts: list[str] = field(default_factory=list)
    error: str = ""
    whole: bool = False

    @property
    def wrong(self) -> bool:
        """Bytes came to their announced end, and are not the digest's."""
        return not self.error and not self.whole


async def pull(
    url: str,
    digest: str,
    repository: str = REPOSITORY,
    tries: int = TRIES,
    seen: Callable[[int], None] = lambda came: None,
) -> Pull:
    """GETs a blob of the registry at this URL. `seen` is told how many bytes have come."""
    loop = asyncio.get_running_loop()
    pulled, hashed = Pull(digest), hashlib.sha256()
    began = last = loop.time()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    for number in range(tries):
        if number:
            await asyncio.sleep(_BETWEEN)
        headers = {**DOCKERD, **({"Range": f"bytes={pulled.came}-"} if pulled.came else {})}
        pulled.error = ""
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(force_close=True), timeout=timeout
                ) as session,
                session.get(f"{url}/v2/{repository}/blobs/{digest}", headers=headers) as answer,
            ):
                if answer.status != (206 if pulled.came else 200):
                    raise aiohttp.ClientPayloadError(f"{answer.status} {await answer.text()}")
                async for piece in answer.content.iter_any():
                    now = loop.time()
                    if pulled.came:
                        pulled.gap = max(pulled.gap, now - last)
                    else:
                        pulled.first = now - began
                    last = now
                    hashed.update(piece)
                    pulled.came += len(piece)
                    seen(pulled.came)
            break
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            pulled.error = f"{type(error).__name__}: {error}"[:200]
            pulled.cuts.append(f"at {pulled.came}: {pulled.error}")
    pulled.took = loop.time() - began
    pulled.whole = not pulled.error and f"sha256:{hashed.hexdigest()}" == digest
    return pulled
