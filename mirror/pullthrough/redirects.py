"""Clients are sent to the object store for blobs that are there, where that is configured.

What the store has is not proven on that way. So it is asked first whether it has the blob, with the
size that is known here; and a client that asks again for the same one, as it does when its bytes
were wrong, is answered from here. What the store has is then looked at behind: where the right
bytes are on the disk, nobody else would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import structlog
from cachetools import TTLCache

from ..contracts.events import BlobRedirected
from ..contracts.registry import Redirected
from ..contracts.second_tier import FarContent, FarFault, SecondTierFault
from ..frozen import dataclass
from ..oci.descriptor import OCTET_STREAM, Descriptor
from ..oci.digest import Digest
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..threads import aside
from .second_tier import TierState

log = structlog.get_logger()

GOOD_FOR = 20 * 60
"""Seconds for which a URL is good: a client may ask for the rest of a blob with it."""

_SIZES = 16_384  # digests
_SIZE_FOR = 60.0  # seconds
_SENT = 65_536  # pairs of a client and a digest
_SENT_FOR = 600.0  # seconds
_TIMES = 2
_PROVEN = 16_384  # digests
_PROVEN_FOR = 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class RedirectPolicy:
    """Blobs of `over` bytes at least, for clients of these networks."""

    networks: Sequence[IPv4Network | IPv6Network]
    over: int

    def is_for(self, client: str) -> bool:
        """`client`: an address, or the network that stands for it; others are no clients."""
        try:
            found = ip_network(client)
        except ValueError:
            return False
        return any(_is_within(found, each) for each in self.networks)


class Redirects:
    """`size_here`: bytes of content that is here; None: it is not."""

    def __init__(
        self,
        state: TierState,
        far: FarContent,
        policy: RedirectPolicy,
        size_here: Callable[[Digest], int | None],
    ) -> None:
        self._state = state
        self._far = far
        self._policy = policy
        self._size_here = size_here
        monotonic = state.clock.monotonic
        self._sizes: TTLCache[Digest, int] = TTLCache(_SIZES, _SIZE_FOR, monotonic)
        self._sent: TTLCache[tuple[str, Digest], int] = TTLCache(_SENT, _SENT_FOR, monotonic)
        self._proven: TTLCache[Digest, None] = TTLCache(_PROVEN, _PROVEN_FOR, monotonic)
        self._proving: asyncio.Task[None] | None = None

    async def find(self, client: str, repository: Repository, digest: Digest) -> Redirected | None:
        """Where this client is sent for the blob; None: it is answered from here."""
        if not self._policy.is_for(client) or self._state.is_wrong(digest):
            return None
        here = self._size_here(digest)
        if here is not None and here < self._policy.over:
            return None
        times = self._sent.get((client, digest), 0)
        if times >= _TIMES:
            self._doubt(digest)
            return None
        size = await self._size_there(digest)
        if size is None or size < self._policy.over or here not in (None, size):
            return None
        try:
            location = await self._far.presigned(digest, GOOD_FOR)
        except FarFault as error:
            log.warning("second_tier_failed", operation="sign", reason=str(error))
            return None
        self._sent[client, digest] = times + 1
        self._state.events.emit(BlobRedirected(repository, digest, size))
        return Redirected(Descriptor(OCTET_STREAM, digest, size), location)

    async def close(self) -> None:
        if self._proving is not None:
            self._proving.cancel()
            await asyncio.wait([self._proving])

    def _doubt(self, digest: Digest) -> None:
        """One is looked at at a time; others when they are asked for again."""
        if digest in self._proven or (self._proving is not None and not self._proving.done()):
            return
        self._proving = asyncio.create_task(self._prove(digest), name=f"prove {digest}")

    async def _prove(self, digest: Digest) -> None:
        stream = await self._state.get(digest, None)
        if stream is None:
            return
        hasher = digest.hasher()
        try:
            while piece := await stream.read():
                await aside(hasher.update, piece)
        except SecondTierFault:  # looked at another time
            return
        finally:
            await stream.close()
        if hasher.hexdigest() == digest.hex:
            self._proven[digest] = None
        else:
            self._sizes.pop(digest, None)
            self._state.reject(digest, "its bytes are not its digest's")

    async def _size_there(self, digest: Digest) -> int | None:
        """None: the store has it not, or does not answer in time."""
        if digest in self._sizes:
            return self._sizes[digest]
        stream = await self._state.get(digest, ByteRange(0, 1))
        if stream is None:
            return None
        await stream.close()
        self._sizes[digest] = stream.size
        return stream.size


def _is_within(network: IPv4Network | IPv6Network, larger: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(larger, IPv4Network):
        return network.subnet_of(larger)
    if isinstance(network, IPv6Network) and isinstance(larger, IPv6Network):
        return network.subnet_of(larger)
    return False
