"""Which registry answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from ..contracts.context import RequestContext
from ..contracts.registry import Reader
from ..oci.errors import Denied, quoted
from ..oci.reference import Repository
from .forwarding import Forwarding

T = TypeVar("T")


class Routed(Forwarding):
    """A Reader of registries, each under the name that the configuration gives it.

    One that is not configured is refused (Denied): the mirror is no open proxy. Unless there are
    `others`, which answers for those.
    """

    def __init__(self, registries: Mapping[str, Reader], others: Reader | None = None) -> None:
        self._registries = registries
        self._others = others

    async def forward(
        self,
        context: RequestContext,
        repository: Repository,
        method: str,
        ask: Callable[[Reader], Awaitable[T]],
    ) -> T:
        return await ask(self._of(repository))

    def _of(self, repository: Repository) -> Reader:
        registry = self._registries.get(repository.registry, self._others)
        if registry is None:
            raise Denied(
                f"registry {quoted(repository.registry)} is not served here; "
                f"configured are {', '.join(sorted(self._registries))}"
            )
        return registry
