"""Who is told of pushes and deletes by HTTP, and the queue of what they are still to be told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Protocol

from ..frozen import dataclass
from ..oci.digest import Digest

MOST_WEBHOOKS = 20
"""Of one namespace, and of those of administrators."""

MOST_WAITING = 1_000
"""Deliveries that wait for one webhook. What happens while there are as many is dropped for it, and
counted."""

MOST_OF_NAMESPACE = MOST_WAITING // 4
"""So many of those are of one namespace, where the webhook is told of all and half of its room is
taken."""

MOST_KEPT = 200
"""Deliveries of one webhook that are over and stay in its log, for KEPT seconds."""

KEPT = 14 * 86_400.0

MOST_WORDS = 300
"""Characters of what is kept of one attempt."""


class Subject(StrEnum):
    """What a webhook may ask to be told of; `action` in the envelope. `FILL` is of the mirror's
    content, and for the webhooks of administrators alone. `PING` comes when somebody tries the
    webhook, and is asked for by none."""

    PUSH = "push"  # a manifest; also when a tag is moved to one that is here
    DELETE = "delete"  # a tag, a manifest or a repository
    FILL = "fill"
    PING = "ping"


@dataclass(frozen=True, slots=True)
class Happening:
    """`repository`: its whole name; of a fill with the registry's before it, of a ping "". A DELETE
    with a `tag` is of that tag, one with a `digest` alone of that manifest, one with neither of the
    repository. `by`: a principal's name, or what else did it (`retention`). `at`: seconds since the
    epoch."""

    subject: Subject
    repository: str
    at: float
    by: str = ""
    digest: Digest | None = None
    tag: str = ""
    media_type: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Webhook:
    """`namespace`: the organisation or the user whose it is; "" for those of administrators, which
    are told of all. `pattern` means repositories' names as a Grant's does: without the namespace,
    `*` any characters; those of administrators the whole name.

    `waiting` and `dropped`: its deliveries, the latter since ever. `failures`: attempts in a row
    that nobody took; nothing of it is due before `rests_until`.
    """

    id: str
    namespace: str
    url: str
    subjects: tuple[Subject, ...]
    pattern: str = "*"
    created_at: float = 0.0
    created_by: str = ""
    is_disabled: bool = False
    waiting: int = 0
    dropped: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def wants(self, happening: Happening) -> bool:
        """Whether it is to be told; never of a ping."""
        if self.is_disabled or happening.subject not in self.subjects:
            return False
        if not self.namespace:
            return fnmatchcase(happening.repository, self.pattern)
        if happening.subject is Subject.FILL:
            return False
        namespace, _, rest = happening.repository.partition("/")
        return namespace == self.namespace and fnmatchcase(rest, self.pattern)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver has answered; `words`: the beginning of its body, for people, escaped."""

    status: int
    words: str


class NotReceived(Exception):
    """There was no answer; the message says why, in words fit for whoever has made the webhook."""


class Poster(Protocol):
    """The way to receivers."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """No redirect is followed. Raises NotReceived, within seconds."""


class DeliveryState(StrEnum):
    WAITING = "waiting"  # for its first attempt, or for the next
    DELIVERED = "delivered"
    FAILED = "failed"  # given up


@dataclass(frozen=True, slots=True)
class Delivery:
    """One happening for one webhook. `id` is random, and the event's id in the envelope: it stays
    the same in all attempts. `status`: of the last answer, None where there was none; `words`: what
    came of the last attempt, at most MOST_WORDS. `next_at`: when it is tried next, None when it is
    over; `ended_at` when that was."""

    id: str
    webhook: str
    happening: Happening
    created_at: float
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    next_at: float | None = None
    status: int | None = None
    words: str = ""
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is in this process' hands, with what it takes to make it."""

    delivery: Delivery
    webhook: Webhook
    secret: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, of all webhooks. `oldest_at`: when the oldest of it happened, None for none.
    `dropped`: since ever."""

    waiting: int
    oldest_at: float | None
    dropped: int


class WebhookRecords(Protocol):
    """Webhooks, and their deliveries. Every method is one transaction.

    HostedRecords' put_manifest, delete_tag, delete_manifest and delete_repository add, in their own
    transaction, a delivery for each webhook that wants what they record, as `tell` does. A push of
    what is there already is told of, too. Of a manifest that goes with its tags, the manifest is.
    """

    async def webhooks(self, namespace: str | None = None) -> Sequence[Webhook]:
        """Of this namespace, in the order they were made; of all without it."""

    async def webhook(self, id: str) -> Webhook | None: ...

    async def add_webhook(self, webhook: Webhook, secret: str) -> bool:
        """False where its namespace has MOST_WEBHOOKS."""

    async def set_webhook(self, webhook: Webhook, secret: str | None = None) -> bool:
        """Takes over the address, the subjects, the pattern and `is_disabled` of this one, and the
        secret where one is given; it rests no more. False where there is none of its id. What waits
        for one that is disabled stays, and is not due."""

    async def remove_webhook(self, id: str) -> bool:
        """With its deliveries."""

    async def tell(self, happening: Happening) -> int:
        """Adds a delivery, due at once, for each webhook that wants this, but for those with
        MOST_WAITING; how many that were."""

    async def ping(self, id: str, happening: Happening) -> Delivery | None:
        """Adds a delivery to this webhook, as `tell`; None where there is none of this id, or it
        has MOST_WAITING."""

    async def claim(
        self,
        now: float,
        until: float,
        count: int,
        but_webhooks: Collection[str] = (),
        but_namespaces: Collection[str] = (),
    ) -> Sequence[Due]:
        """At most `count` deliveries that are due: one of each webhook, which is its oldest, and
        none of these webhooks and namespaces; first the one that has been due for longest. Nobody
        else is given them before `until`, when they are due again: who claimed them may have died.
        """

    async def attempted(
        self,
        id: str,
        now: float,
        state: DeliveryState,
        status: int | None,
        words: str,
        next_at: float | None = None,
        rests_until: float | None = None,
    ) -> None:
        """One more attempt was made, and the claim is over. `next_at` where the state is WAITING.
        `rests_until`: where nobody took it; it counts as one more of the webhook's failures, and
        without it they are forgotten, as is its rest. Nothing where the delivery is gone."""

    async def redeliver(self, id: str, webhook: str, now: float) -> Delivery | None:
        """Makes one that is over wait again, due at once, as if it had not been tried. One that
        waits is due at once; the webhook rests no more. None where that webhook has none of this
        id."""

    async def deliveries(
        self, webhook: str, count: int = 50, before: float | None = None
    ) -> Sequence[Delivery]:
        """The newest first, made before `before`."""

    async def trim_deliveries(self, now: float, give_up_before: float) -> int:
        """Has what was made before `give_up_before` and still waits fail, with words to that
        effect; removes from the log what is over MOST_KEPT and KEPT. How many it gave up."""

    async def backlog(self) -> Backlog: ...
