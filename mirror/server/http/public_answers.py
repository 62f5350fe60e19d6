"""Answers that anybody may have, as a type: only they are given again to whoever asks the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass

from ...contracts.context import ANONYMOUS, RequestContext
from ..v2.access_log import Hit
from ..v2.target import TargetKind


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer was asked with: the request's target and Host as they came, and what the log
    says of it."""

    target: str
    host: str
    kind: TargetKind
    registry: str = ""
    repository: str = ""
    reference: str = ""

    def told(self, method: str, status: int, sent: int) -> Hit:
        """`sent`: bytes of the answer's body."""
        return Hit(
            method,
            self.kind.value,
            self.registry,
            self.repository,
            self.reference,
            status,
            sent,
        )


@dataclass(frozen=True, slots=True)
class PublicAnswer:
    """What a GET was answered with, and anybody else may be answered with for as long as it lives.

    Made of the context for which a Reader answered (see mirror/contracts/registry.py): what a
    Reader gives to a client that has proven nothing, it gives to every client. `headers` have an
    ETag; `not_modified` are those for who has it already, None where such a request is not answered
    again. `life`: seconds for which the answer stays the same, None for one that does not change.

    Raises ValueError when that context has a principal: what was answered to one is nobody else's.
    """

    context: InitVar[RequestContext]
    asked: Asked
    headers: Mapping[str, str]
    body: bytes
    not_modified: Mapping[str, str] | None = None
    life: float | None = None

    def __post_init__(self, context: RequestContext) -> None:
        if context.principal != ANONYMOUS:
            raise ValueError("what was answered to a principal is for nobody else")


def public_answer(
    context: RequestContext,
    asked: Asked,
    headers: Mapping[str, str],
    body: bytes,
    not_modified: Mapping[str, str] | None = None,
    life: float | None = None,
) -> PublicAnswer | None:
    """What was answered for this context as a PublicAnswer; None when it is for a principal."""
    if context.principal != ANONYMOUS:
        return None
    return PublicAnswer(context, asked, headers, body, not_modified, life)
