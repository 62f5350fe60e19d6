"""What can be done with a bucket beside reading and writing content.

    <prefix>used/<name of the content>    an object of no bytes, written when the content was used
    <prefix>wrong/<name of the content>   what was wrong, for people to look at

An object's time cannot be set without copying all of it, which some servers refuse, and S3 above
5 GiB. So that a content was used is told by an object beside it, whose time counts for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import timedelta

import obstore
import structlog

from ...contracts.second_tier import FarFault, FarObject, FarPage
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...times import STORES
from .bucket import FAILURES, Bucket, reason_of
from .s3 import name_of

log = structlog.get_logger()

_USED = "used/"
_BEHIND_USED = "used0"  # no name stands between: 0 follows / in ASCII
_WRONG = "wrong/"
_PAGE = 1000  # that S3 gives at once
_LARGEST_COPY = 5 << 30  # that S3 makes in one request
_COPY = 300.0  # seconds: the server reads and writes all of it


class S3Content:
    """A FarContent. `client_endpoint` is what presigned URLs lead to; None: the bucket's own."""

    def __init__(self, bucket: Bucket, client_endpoint: str | None = None) -> None:
        self._store = bucket.opened()
        self._for_clients = bucket.opened(client_endpoint) if client_endpoint else self._store

    async def page(self, after: str, limit: int) -> FarPage:
        async with _telling(STORES.far_answer * 2):
            found = await self._listed("", after, limit)
            objects = [each for each in found if not each.name.startswith(_USED)]
            if objects:
                used = await self._used(after, objects[-1].name)
                objects = [replace(o, at=max(o.at, used.get(o.name, 0.0))) for o in objects]
        following = None if len(found) < limit else found[-1].name
        if found and found[-1].name.startswith(_USED):  # of which there may be as many again
            following = _BEHIND_USED
        return FarPage(tuple(objects), following)

    async def remove(self, names: Collection[str]) -> int:
        async with _telling(STORES.far_answer + len(names) * 0.1):
            await obstore.delete_async(self._store, [*names, *(_USED + name for name in names)])
        return len(names)

    async def set_aside(self, digest: Digest) -> None:
        name = name_of(digest)
        async with _telling(_COPY):
            with contextlib.suppress(FileNotFoundError):
                size = (await obstore.head_async(self._store, name))["size"]
                if size <= _LARGEST_COPY:
                    await self._copied(name, _WRONG + name)
                await obstore.delete_async(self._store, name)

    async def renew(self, digest: Digest) -> None:
        async with _telling(STORES.far_answer):
            await obstore.put_async(self._store, _USED + name_of(digest), b"")

    async def presigned(self, digest: Digest, seconds: int) -> str:
        name, during = name_of(digest), timedelta(seconds=seconds)
        async with _telling(STORES.far_answer):
            return await obstore.sign_async(self._for_clients, "GET", name, during)

    async def _copied(self, name: str, to: str) -> None:
        try:
            await obstore.copy_async(self._store, name, to)
        except FileNotFoundError:
            raise
        except FAILURES as error:  # it is not to be read, whether anybody can look at it or not
            log.warning("second_tier_wrong_not_copied", name=name, reason=reason_of(error))

    async def _used(self, after: str, last: str) -> dict[str, float]:
        """When contents behind `after`, up to `last`, were said to be used."""
        used: dict[str, float] = {}
        at = _USED + after
        while found := await self._listed(_USED, at, _PAGE):
            for each in found:
                if each.name > _USED + last:
                    return used
                used[each.name.removeprefix(_USED)] = each.at
            at = found[-1].name
        return used

    async def _listed(self, prefix: str, after: str, limit: int) -> Sequence[FarObject]:
        """At most `limit` objects behind this one. Raises ValueError where the server knows of no
        such beginning: it would give the first ones for ever."""
        pages = obstore.list(self._store, prefix or None, offset=after or None, chunk_size=limit)
        try:
            found = await anext(pages)
        except StopAsyncIteration:
            return []
        if after and found and found[0]["path"] <= after:
            raise ValueError("its list does not begin where it is asked to")
        return [
            FarObject(each["path"], _digest(each["path"]), each["size"], _at(each))
            for each in found[:limit]
        ]


@contextlib.asynccontextmanager
async def _telling(seconds: float) -> AsyncIterator[None]:
    """What is done takes so long at most. Raises FarFault, with the store's words."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except FAILURES as error:
        raise FarFault(reason_of(error)) from error


def _at(found: obstore.ObjectMeta) -> float:
    return found["last_modified"].timestamp()


def _digest(name: str) -> Digest | None:
    """Of a content; None: some other object."""
    algorithm, _, rest = name.partition("/")
    try:
        digest = Digest.parse(f"{algorithm}:{rest.rpartition('/')[2]}")
    except DigestInvalid:
        return None
    return digest if name_of(digest) == name else None
