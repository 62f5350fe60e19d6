"""A registry that is far away."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .context import Asker
from .registry import BytesContent, TagPage


class StreamContent(Protocol):
    """A remote's body, unverified: only fills read it. The holder closes it.

    It may change endpoints on its way: `source`, `vouched`, `doubted` and `reject` are those of the
    endpoint whose bytes were read last.
    """

    @property
    def descriptor(self) -> Descriptor:
        """`size` is the whole content's, not this part's; None when the upstream gave none."""

    @property
    def start(self) -> int:
        """The offset of the first byte that comes: 0 when the upstream ignored the range."""

    @property
    def source(self) -> str:
        """The endpoint's name, for messages and metrics."""

    @property
    def vouched(self) -> bool:
        """Whether the endpoint is the registry itself; others' bytes are worth nothing unproven."""

    @property
    def kept(self) -> bool:
        """Whether the bytes were kept by mirrors, of whatever repository (see SecondTier): that
        they are there says nothing of who may see them."""

    @property
    def doubted(self) -> bool:
        """Whether clients wait for a while, until the bytes are proven: those of a stranger, who
        could give any. Of the registry, and of this mirror's own kind, they get all at once but the
        end."""

    async def read(self) -> bytes:
        """The next bytes as they come, at most about a MiB; b"" at the end.

        Raises Unavailable when the body was cut, is too slow, or is silent everywhere. Cancelled,
        it may be called again, and no byte is lost.
        """

    def reject(self, reason: str) -> None:
        """Tells the upstream that the bytes of this stream were proven wrong."""

    async def close(self) -> None:
        """Closed again, it stays as it is."""


class Upstream(Protocol):
    """A Reader that is far away: its blobs are streams, to be verified by their reader."""

    async def resolve(
        self, asker: Asker, repository: Repository, tag: str, passed_over: Collection[Digest] = ()
    ) -> Descriptor:
        """What the tag points to, asked with a HEAD where that suffices: it is not counted
        against Docker Hub's limits. A digest in the tag's place asks whether it is there.

        An endpoint that names one of `passed_over` counts as one that gave no answer: no endpoint
        has the manifest that it names, or that is no manifest."""

    async def tagged(
        self, asker: Asker, repository: Repository, tag: str
    ) -> Descriptor | BytesContent:
        """As `resolve`, of a tag of which nothing is here; or the manifest itself, where one
        exchange brings that, and no pull is counted for it."""

    async def manifest(
        self, asker: Asker, repository: Repository, digest: Digest
    ) -> BytesContent: ...

    async def stat(self, asker: Asker, repository: Repository, digest: Digest) -> Descriptor: ...

    async def blob(
        self,
        asker: Asker,
        repository: Repository,
        digest: Digest,
        range: ByteRange | None = None,
        vouched: bool = False,
    ) -> StreamContent:
        """`vouched`: only bytes that are not `doubted` (see StreamContent): a client gets them
        unproven."""

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        """The whole index of manifests whose subject is this digest. Raises Unknown where there is
        none: a registry without that API does not say whether there could be one."""

    async def tags(
        self,
        asker: Asker,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage: ...

    def is_down(self, repository: Repository, tag: str) -> bool:
        """Whether no endpoint that may say what this tag points to was there lately, or could say
        it: an ask fails at once, or takes its time to."""

    def is_scarce(self) -> bool:
        """Whether little is left of what the upstream gives (Docker Hub counts GETs of manifests):
        what can wait should, and nothing should be fetched that no client has asked for."""
