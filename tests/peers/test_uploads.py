"""What other nodes ask of an upload, at the peer port."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from mirror.server.peers.uploads import PeerUploads

from ..fakes.hosted import MemoryHeld
from ..fakes.uploads import MemoryUploads


@pytest.mark.parametrize("start", ["-1", "%C2%B2", "%D9%A1", "x", "", "9" * 5000])
async def test_an_offset_that_is_none_appends_nothing(start: str) -> None:
    uploads = MemoryUploads(MemoryHeld(lambda: 0.0))
    session = await uploads.begin("team/app")
    loop = asyncio.get_running_loop()
    body = StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
    body.feed_data(b"more")
    body.feed_eof()
    path = f"/fleet/1/uploads/{session}?repository=team/app&start={start}"
    answer = await PeerUploads(uploads, None).answer(
        make_mocked_request("PATCH", path, payload=body)
    )
    assert answer.status == 400
    assert isinstance(answer.body, bytes)
    assert "no offset" in json.loads(answer.body)["message"]
    assert await uploads.size("team/app", session) == 0
