"""When a request is answered at the latest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from ...contracts.context import RequestContext, left
from ...oci.errors import Unavailable
from ...times import DEADLINES
from .target import TargetKind

T = TypeVar("T")

_OF_KIND: Mapping[TargetKind, float] = {
    TargetKind.TAG: DEADLINES.tag,
    TargetKind.MANIFEST: DEADLINES.manifest,
    TargetKind.BLOB: DEADLINES.blob,
    TargetKind.TAGS: DEADLINES.tags,
    TargetKind.REFERRERS: DEADLINES.referrers,
    TargetKind.CATALOG: DEADLINES.tags,
    TargetKind.UPLOAD: DEADLINES.push,
}


def with_deadline(context: RequestContext, kind: TargetKind, *, is_head: bool) -> RequestContext:
    """The context of a request of this kind, which begins now."""
    seconds = _OF_KIND[kind]
    if kind is TargetKind.BLOB and is_head:
        seconds = DEADLINES.stat
    return context.lasting(seconds)


async def in_time(context: RequestContext, answer: Awaitable[T]) -> T:
    """What the registry answers, of a blob once its first byte may be read. Raises RegistryError,
    at the request's deadline Unavailable: what is under way goes on then for whoever asks next."""
    seconds = left(context)
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise Unavailable(f"there was no answer within {seconds:.0f} s", retry_after=5) from None
