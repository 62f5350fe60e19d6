from __future__ import annotations

import asyncio

import pytest

from mirror.asking.once_more import once_more_if_silent
from mirror.oci.errors import Unavailable

SILENT = 0.05  # seconds


async def test_a_proof_is_asked_for_once_more_where_it_is_silent() -> None:
    asked: list[int] = []

    async def ask() -> str:
        asked.append(len(asked))
        if len(asked) == 1:
            await asyncio.Event().wait()
        return "yes"

    assert await once_more_if_silent(ask, SILENT) == "yes"
    assert len(asked) == 2


async def test_a_proof_that_fails_at_once_is_not_asked_for_again() -> None:
    asked: list[int] = []

    async def ask() -> str:
        asked.append(len(asked))
        raise Unavailable("cut")

    with pytest.raises(Unavailable):
        await once_more_if_silent(ask, SILENT)
    assert len(asked) == 1
