"""Readers around other Readers: one that passes all on, and one that passes on what it knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ..contracts.context import RequestContext
from ..contracts.registry import CONTRACTS, BytesContent, FileContent, Reader, Resolved, TagPage
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.ranges import ByteRange
from ..oci.reference import Repository

T = TypeVar("T")

METHODS = frozenset(
    name
    for contract in CONTRACTS
    for name, method in vars(contract).items()
    if iscoroutinefunction(method) and not name.startswith("_")
)
"""All that a registry may be asked to do."""


class Forwarding(ABC):
    """A Reader that passes every method on through `forward`. It states only what it changes."""

    @abstractmethod
    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        """Asks whoever is behind. `method` is the name of what is asked."""

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        return await self.forward(
            context, repository, "resolve", lambda inner: inner.resolve(context, repository, tag)
        )

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        return await self.forward(
            context,
            repository,
            "manifest",
            lambda inner: inner.manifest(context, repository, digest),
        )

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        return await self.forward(
            context, repository, "stat", lambda inner: inner.stat(context, repository, digest)
        )

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        return await self.forward(
            context,
            repository,
            "blob",
            lambda inner: inner.blob(context, repository, digest, part),
        )

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        return await self.forward(
            context,
            repository,
            "referrers",
            lambda inner: inner.referrers(context, repository, digest, artifact_type),
        )

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        return await self.forward(
            context, repository, "tags", lambda inner: inner.tags(context, repository, count, last)
        )


class Around(Forwarding):
    """A Forwarding that passes everything on to `inner`."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        return await ask(self._inner)


class Guarding(Forwarding):
    """A Forwarding that fails closed. It passes on the methods that `lets_through` names, once they
    are admitted; a guard may write others itself. Every other method of the contracts is denied,
    also one that was not there yet when the guard was written."""

    lets_through: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    @abstractmethod
    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        """Returns when this may be asked. Raises RegistryError."""

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        if method not in self.lets_through:
            raise _denied(method)
        await self.admit(context, repository, method)
        return await ask(self._inner)

    if not TYPE_CHECKING:  # to a type checker a guard has no methods but those that are written

        def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
            if name not in METHODS:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

            async def denies(*_: object, **__: object) -> object:
                raise _denied(name)

            return denies


def _denied(method: str) -> Denied:
    return Denied(f"this mirror does not let {method!r} through here")
