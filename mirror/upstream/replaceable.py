"""An upstream that outlives the configuration that it was made by."""

from __future__ import annotations

from collections.abc import Collection

from ..contracts.context import Asker
from ..contracts.registry import BytesContent, TagPage
from ..contracts.upstream import StreamContent, Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..switch import Switch, Use


class ReplaceableUpstream:
    """An Upstream: the current one of a switch. A download goes on for longer than the request that
    began it, and than the configuration: an ask or a body that is under way ends where it began,
    the next one goes to the upstream that is current by then."""

    def __init__(self, switch: Switch[Upstream]) -> None:
        self._switch = switch

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        with self._switch.use() as use:
            return await use.value.resolve(asker, repository, tag, passed_over)

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        with self._switch.use() as use:
            return await use.value.tagged(asker, repository, tag)

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        with self._switch.use() as use:
            return await use.value.manifest(asker, repository, digest)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        with self._switch.use() as use:
            return await use.value.stat(asker, repository, digest)

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        use = self._switch.use()
        try:
            stream = await use.value.blob(asker, repository, digest, range, vouched)
        except BaseException:
            use.end()
            raise
        return _Stream(stream, use)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        with self._switch.use() as use:
            return await use.value.referrers(asker, repository, digest)

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        with self._switch.use() as use:
            return await use.value.tags(asker, repository, count, last)

    def is_down(self, repository: Repository, tag: str) -> bool:
        return self._switch.current.is_down(repository, tag)

    def is_scarce(self) -> bool:
        return self._switch.current.is_scarce()


class _Stream:
    """A StreamContent that uses its upstream until it is closed."""

    def __init__(self, stream: StreamContent, use: Use[Upstream]) -> None:
        self._stream = stream
        self._use = use

    @property
    def descriptor(self) -> Descriptor:
        return self._stream.descriptor

    @property
    def start(self) -> int:
        return self._stream.start

    @property
    def source(self) -> str:
        return self._stream.source

    @property
    def vouched(self) -> bool:
        return self._stream.vouched

    @property
    def doubted(self) -> bool:
        return self._stream.doubted

    @property
    def kept(self) -> bool:
        return self._stream.kept

    async def read(self) -> bytes:
        return await self._stream.read()

    def reject(self, reason: str) -> None:
        self._stream.reject(reason)

    async def close(self) -> None:
        try:
            await self._stream.close()
        finally:
            self._use.end()
