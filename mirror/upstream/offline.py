"""An upstream that is never asked: `offline: true`, and questions about what is here."""

from __future__ import annotations

from collections.abc import Collection

from ..contracts.context import Asker
from ..contracts.registry import BytesContent, TagPage
from ..contracts.upstream import StreamContent
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, Unavailable
from ..oci.ranges import ByteRange
from ..oci.reference import Repository

_NOT_HERE = "it is not in the cache, and no upstream is asked here"
_NOBODY_SAYS = "it is not in the cache, or too old to be served, and no upstream is asked here"
_RETRY_AFTER = 60.0  # seconds: longer than anything waits here for trouble to pass


class Offline:
    """An Upstream that refuses at once, whatever it is asked.

    Content is denied: there is nothing to wait for. To say what a tag is, or whether a repository
    shows a digest, it is unavailable: what was said before is still believed then.
    """

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        raise _unavailable()

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        raise _unavailable()

    async def manifest(self, asker: Asker, repository: Repository, digest: Digest) -> BytesContent:
        raise Denied(_NOT_HERE)

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor:
        raise _unavailable()

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        raise Denied(_NOT_HERE)

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        raise _unavailable()

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        raise _unavailable()

    def is_down(self, repository: Repository, tag: str) -> bool:
        return False  # an ask fails at once

    def is_scarce(self) -> bool:
        return False


def _unavailable() -> Unavailable:
    return Unavailable(_NOBODY_SAYS, retry_after=_RETRY_AFTER)
