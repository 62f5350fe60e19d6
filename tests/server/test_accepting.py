"""Whose idle connections make room where few descriptors are left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from mirror.events import Events
from mirror.server.http.accepting import Acceptor
from mirror.server.http.idle_connections import Idle
from mirror.server.http.response_cache import ResponseCache
from mirror.server.v2.access_log import AccessLog

Named = tuple[str, bool, float]  # whose it is, whether it was used, since when it is idle


async def making_room(*named: Named) -> list[Named]:
    """What is closed of these connections, first to last, when room is made once."""
    closed: list[Named] = []
    with ExitStack() as stack:
        idle = []
        for one in named:
            server, _ = map(stack.enter_context, socket.socketpair())
            idle.append(Idle(server.fileno(), *one, close=partial(closed.append, one)))
        acceptor = Acceptor(
            lambda first, owed: asyncio.Protocol(),
            ResponseCache(AccessLog(lambda line: None, Events())),
            idle=60.0,
            others=lambda: idle,
        )
        acceptor._close_idle()
        await acceptor.close()
    return closed


def of(client: int, count: int, used: bool = True, since: float = 0.0) -> Sequence[Named]:
    return [(f"192.0.2.{client}", used, since + number) for number in range(count)]


async def test_the_client_that_has_most_gives_those_that_it_has_not_used_first() -> None:
    neighbours = [one for client in range(2, 22) for one in of(client, 1)]
    many = [*of(1, 20, since=5), *of(1, 2, used=False, since=50)]
    closed = await making_room(*neighbours, *many)
    assert closed == [*of(1, 2, used=False, since=50), *of(1, 1, since=5)]


async def test_of_many_clients_that_have_equally_many_several_give_at_once() -> None:
    """A fleet of which each machine keeps one: else each newcomer would wait for a round."""
    fleet = [one for client in range(64) for one in of(client, 1, since=client)]
    assert await making_room(*reversed(fleet)) == fleet[:4]
