"""A registry of which some repositories are one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..contracts.context import RequestContext
from ..contracts.registry import Reader
from ..oci.errors import Denied, Unauthorized
from ..oci.reference import Repository
from .forwarding import Forwarding

T = TypeVar("T")


class HostedFirst(Forwarding):
    """A Reader that looks for a repository among those of one's own, and then in the registry of
    the same name, the mirrored one. A repository is wholly the one or the other: once something is
    pushed to it, nothing of the mirrored one of that name is given any more."""

    def __init__(
        self, hosted: Reader, is_hosted: Callable[[str], Awaitable[bool]], mirrored: Reader
    ) -> None:
        """`is_hosted`: whether there is a repository of one's own with this name."""
        self._hosted = hosted
        self._is_hosted = is_hosted
        self._mirrored = mirrored

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        mine = await self._is_hosted(repository.name)
        return await ask(self._hosted if mine else self._mirrored)


class Unchallenged(Forwarding):
    """Repositories of one's own as the mirror's names give them: to everybody alike, and never with
    a challenge, which a Docker daemon answers at a mirror with its user's Docker Hub password."""

    def __init__(self, hosted: Reader) -> None:
        self._hosted = hosted

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        try:
            return await ask(self._hosted)
        except Unauthorized:
            raise Denied(
                f"{repository.name} may not be pulled without a login, and a mirror takes none: "
                "pull it by a name of the hosted registry, after docker login"
            ) from None
