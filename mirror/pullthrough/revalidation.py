"""Asking the upstream again about what ages: while the client waits, behind it, or not just yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

import structlog

from ..asking.backoff import Backoff
from ..asking.single_flight import SingleFlight
from ..contracts.context import RequestContext, left
from ..contracts.registry import Outcome
from ..oci.errors import RegistryError, Unavailable, Unknown
from ..oci.reference import Repository
from .freshness import RecordState
from .policy import AnswerPatience

log = structlog.get_logger()


class Aged(Protocol):
    """What is answered: STALE says that the upstream could not say, or was not believed."""

    @property
    def outcome(self) -> Outcome: ...


K = TypeVar("K", bound=tuple[Repository, Hashable])
A = TypeVar("A", bound=Aged)


class Lagging(Unavailable):
    """What the upstream has just named is not there yet. That was waited for, and the next ask may
    find it: it is no reason to ask less often."""


class Revalidation(Generic[K, A]):
    """The asks under way, one for each key. `failures` say when an ask behind may follow one that
    failed, `is_down` whether the upstream was lately not there for a key: what can be answered
    stale then does not wait."""

    def __init__(
        self, failures: Backoff[K], patience: AnswerPatience, is_down: Callable[[K], bool]
    ) -> None:
        self._patience = patience
        self._is_down = is_down
        self._checks: SingleFlight[K, A] = SingleFlight()
        self._failures = failures

    async def close(self) -> None:
        await self._checks.close()

    async def answer(
        self,
        context: RequestContext,
        key: K,
        what: str,
        state: RecordState,
        old: A | None,
        ask: Callable[[], Awaitable[A]],
    ) -> tuple[A, bool]:
        """The upstream's word, or the old answer where it may be given (None: there is none, or it
        is too old); and whether an ask was joined that ran already. Raises RegistryError."""
        if old is not None and state is RecordState.REVALIDATE:
            if not self._failures.waiting(key):
                self._checks.begin(context, key, lambda: self._check(key, ask))
            return old, False
        if old is None:
            return await self._within(context, self._patience.unknown, key, ask, what)
        if self._is_down(key):  # the check behind is what finds out that it is back
            self._checks.begin(context, key, lambda: self._check(key, ask))
            return old, False
        try:
            return await self._within(context, self._patience.stale, key, ask, what)
        except Unknown:
            raise
        except RegistryError as error:
            log.info(
                "answered_stale",
                what=what,
                reason=error.message,
                request_id=context.request_id,
            )
            return old, False

    async def _check(self, key: K, ask: Callable[[], Awaitable[A]]) -> A:
        try:
            answer = await ask()
        except Lagging:
            raise
        except RegistryError:
            self._failures.failed(key)
            raise
        if answer.outcome is Outcome.STALE:
            self._failures.failed(key)
        else:
            self._failures.worked(key)
        return answer

    async def _within(
        self,
        context: RequestContext,
        seconds: float,
        key: K,
        ask: Callable[[], Awaitable[A]],
        what: str,
    ) -> tuple[A, bool]:
        seconds = min(seconds, left(context))
        try:
            async with asyncio.timeout(seconds):
                return await self._checks.answer(context, key, lambda: self._check(key, ask))
        except TimeoutError:
            raise silent(seconds, what) from None


def silent(seconds: float, what: str) -> Unavailable:
    return Unavailable(f"the upstream said nothing of {what} within {seconds:.3g} s", retry_after=5)
