"""An upstream that is never asked: `offline: true`, and questions about what is here."""

from __future__ import annotations

from typing import NoReturn

from ..interfaces import BytesContent, StreamContent, TagPage
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Unavailable
from ..oci.ranges import ByteRange
from ..oci.reference import Repository


class Offline:
    """An Upstream that refuses at once, whatever it is asked."""

    async def resolve(self, repository: Repository, tag: str) -> Descriptor:
        _refuse()

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent:
        _refuse()

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor:
        _refuse()

    async def blob(
        self, repository: Repository, digest: Digest, range: ByteRange | None = None
    ) -> StreamContent:
        _refuse()

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None = None
    ) -> BytesContent:
        _refuse()

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage:
        _refuse()


def _refuse() -> NoReturn:
    raise Unavailable("the mirror is offline by its configuration, and this is not in its cache")
