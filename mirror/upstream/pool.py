"""Several endpoints of one registry as one `Upstream`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from ..interfaces import BytesContent, Clock, StreamContent, TagPage, Upstream
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, RateLimited, RegistryError, Unavailable, Unknown, Untrustworthy
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from .endpoint import Trust

_log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of a pool; `name` is for messages."""

    name: str
    upstream: Upstream
    trust: Trust


@dataclass(frozen=True, slots=True)
class StepBack:
    """For how many seconds an endpoint is asked after the others, once it has failed."""

    unavailable: float = 15.0
    untrustworthy: float = 600.0
    longest: float = 3600.0


class Pool:
    """An Upstream that asks its members in their order until one can answer.

    Members that failed lately are asked last, not never: what may be the only way stays open. What
    a tag points to, and every other word that proves itself by nothing, comes only from members
    whose trust is `tags`; content by digest may come from any.
    """

    def __init__(
        self, members: Sequence[Member], clock: Clock, step_back: StepBack | None = None
    ) -> None:
        self._members = tuple(members)
        self._clock = clock
        self._step_back = step_back or StepBack()
        self._back_at: dict[str, float] = {}

    async def resolve(self, repository: Repository, tag: str) -> Descriptor:
        return await self._first(
            lambda member: member.upstream.resolve(repository, tag), self._trusted()
        )

    async def manifest(self, repository: Repository, digest: Digest) -> BytesContent:
        return await self._first(
            lambda member: member.upstream.manifest(repository, digest), self._members
        )

    async def stat(self, repository: Repository, digest: Digest) -> Descriptor:
        return await self._first(
            lambda member: member.upstream.stat(repository, digest), self._trusted()
        )

    async def blob(
        self, repository: Repository, digest: Digest, range: ByteRange | None = None
    ) -> StreamContent:
        async def open_stream(member: Member) -> StreamContent:
            stream = await member.upstream.blob(repository, digest, range)
            return _WatchedStream(stream, lambda error: self._failed(member, error))

        return await self._first(open_stream, self._members)

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None = None
    ) -> BytesContent:
        return await self._first(
            lambda member: member.upstream.referrers(repository, digest, artifact_type),
            self._trusted(),
        )

    async def tags(
        self, repository: Repository, count: int | None = None, last: str | None = None
    ) -> TagPage:
        return await self._first(
            lambda member: member.upstream.tags(repository, count, last), self._trusted()
        )

    def _trusted(self) -> tuple[Member, ...]:
        trusted = tuple(member for member in self._members if member.trust is Trust.TAGS)
        if not trusted:
            raise Denied(
                "no endpoint of this registry may say what a tag points to: "
                "give one of them `trust: tags`"
            )
        return trusted

    async def _first(self, ask: Callable[[Member], Awaitable[T]], members: Sequence[Member]) -> T:
        errors: list[tuple[Member, RegistryError]] = []
        for member in sorted(members, key=self._turn):
            try:
                return await ask(member)
            except (Unknown, Denied) as error:
                errors.append((member, error))
            except (Unavailable, Untrustworthy) as error:
                self._failed(member, error)
                errors.append((member, error))
        raise _verdict(errors)

    def _turn(self, member: Member) -> float:
        """Those that are well keep their order; the others follow, soonest back first."""
        back_at = self._back_at.get(member.name, 0.0)
        return back_at if back_at > self._clock.monotonic() else float("-inf")

    def _failed(self, member: Member, error: RegistryError) -> None:
        if isinstance(error, Untrustworthy):
            seconds = self._step_back.untrustworthy
        elif isinstance(error, RateLimited):
            seconds = min(error.retry_after or 0.0, self._step_back.longest)
        else:
            seconds = self._step_back.unavailable
        now = self._clock.monotonic()
        before = self._back_at.get(member.name, now)
        self._back_at[member.name] = max(before, now + seconds)
        if before <= now:  # said once, not by each request while it lasts
            _log.warning("endpoint_steps_back", endpoint=member.name, reason=error.message)


def _verdict(errors: Sequence[tuple[Member, RegistryError]]) -> RegistryError:
    """Which of the members' errors is the pool's.

    That something does not exist, or may not be read, is final only from whoever must know it:
    the members trusted with tags, or all where there are none. An accelerator that lacks something
    says nothing of the registry; a registry that was not reached may still have it.
    """
    trusted = [error for member, error in errors if member.trust is Trust.TAGS]
    words = trusted or [error for _, error in errors]
    open_ends = [error for error in words if not isinstance(error, Unknown | Denied)]
    return (open_ends or [error for error in words if isinstance(error, Unknown)] or words)[0]


class _WatchedStream:
    """A member's stream; tells the pool when it breaks or brings wrong bytes."""

    def __init__(self, stream: StreamContent, failed: Callable[[RegistryError], None]) -> None:
        self._stream = stream
        self._failed = failed

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
    def validator(self) -> str | None:
        return getattr(self._stream, "validator", None)

    async def read(self) -> bytes:
        try:
            return await self._stream.read()
        except Unavailable as error:
            self._failed(error)
            raise

    def reject(self, reason: str) -> None:
        self._failed(Untrustworthy(reason))
        self._stream.reject(reason)

    async def close(self) -> None:
        await self._stream.close()
