"""What may be done with a bucket, found out by doing it to an object of no meaning."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from ...frozen import dataclass
from ...times import STORES
from .bucket import FAILURES, Bucket, reason_of

_FOLDER = "probe"
_DATA = b"whether this can be written, read, listed and removed\n"


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """`faults`: why something cannot be done, by what: write, read, list, remove. `replaces`: what
    is there is written over though it must not be. `ahead`: seconds by which the store's clock is
    ahead of `wall`'s; None where it is not known, whole seconds else."""

    faults: dict[str, str]
    replaces: bool
    ahead: float | None


async def bucket_facts(bucket: Bucket, wall: Callable[[], float]) -> BucketFacts:
    """Nothing is left there, but where nothing may be removed."""
    probe = _Probe(bucket.opened(), f"{_FOLDER}/{secrets.token_hex(8)}", wall)
    faults: dict[str, str] = {}
    for what, attempt in (
        ("write", probe.write),
        ("read", probe.read),
        ("list", probe.list),
        ("remove", probe.remove),
    ):
        try:
            async with asyncio.timeout(STORES.far_answer):
                await attempt()
        except FAILURES as error:
            faults[what] = reason_of(error)
            if what == "write":  # there is nothing to be read or removed
                break
    return BucketFacts(faults, probe.replaces, probe.ahead)


class _Probe:
    def __init__(self, store: S3Store, name: str, wall: Callable[[], float]) -> None:
        self._store = store
        self._name = name
        self._wall = wall
        self.replaces = False
        self.ahead: float | None = None

    async def write(self) -> None:
        await obstore.put_async(self._store, self._name, _DATA, mode="create")
        try:
            await obstore.put_async(self._store, self._name, _DATA, mode="create")
        except AlreadyExistsError:
            self.replaces = False
        else:
            self.replaces = True

    async def read(self) -> None:
        found = await obstore.get_async(self._store, self._name)
        self.ahead = found.meta["last_modified"].timestamp() - self._wall()
        # One of another size may be of any.
        if found.meta["size"] != len(_DATA) or bytes(await found.bytes_async()) != _DATA:
            raise ValueError("it gives other bytes than it was given")

    async def list(self) -> None:
        names = [each["path"] for each in await anext(obstore.list(self._store, _FOLDER))]
        if self._name not in names:
            raise ValueError("what has just been written is not in its list")

    async def remove(self) -> None:
        await obstore.delete_async(self._store, self._name)
