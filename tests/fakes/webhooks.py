"""WebhookRecords by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from mirror.contracts.webhooks import (
    KEPT,
    MOST_KEPT,
    MOST_OF_NAMESPACE,
    MOST_WAITING,
    MOST_WEBHOOKS,
    Backlog,
    Delivery,
    DeliveryState,
    Due,
    Happening,
    Subject,
    Webhook,
)


@dataclass
class _Kept:
    delivery: Delivery
    claimed_until: float = 0.0

    @property
    def waits(self) -> bool:
        return self.delivery.state is DeliveryState.WAITING


class MemoryWebhooks:
    def __init__(self) -> None:
        self._webhooks: dict[str, tuple[Webhook, str]] = {}
        self._kept: dict[str, _Kept] = {}
        self._ids = itertools.count(1)

    def _with_counts(self, webhook: Webhook) -> Webhook:
        waiting = [kept for kept in self._of(webhook.id) if kept.waits]
        return replace(webhook, waiting=len(waiting))

    def _of(self, webhook: str) -> list[_Kept]:
        return [kept for kept in self._kept.values() if kept.delivery.webhook == webhook]

    def _alter(self, id: str, **changes: object) -> None:
        webhook, secret = self._webhooks[id]
        self._webhooks[id] = replace(webhook, **changes), secret  # type: ignore[arg-type]

    async def webhooks(self, namespace: str | None = None) -> Sequence[Webhook]:
        return [
            self._with_counts(webhook)
            for webhook, _ in self._webhooks.values()
            if namespace in (None, webhook.namespace)
        ]

    async def webhook(self, id: str) -> Webhook | None:
        return self._with_counts(self._webhooks[id][0]) if id in self._webhooks else None

    async def add_webhook(self, webhook: Webhook, secret: str) -> bool:
        if len(await self.webhooks(webhook.namespace)) >= MOST_WEBHOOKS:
            return False
        self._webhooks[webhook.id] = webhook, secret
        return True

    async def set_webhook(self, webhook: Webhook, secret: str | None = None) -> bool:
        if webhook.id not in self._webhooks:
            return False
        old, kept = self._webhooks[webhook.id]
        new = replace(
            old,
            url=webhook.url,
            subjects=webhook.subjects,
            pattern=webhook.pattern,
            is_disabled=webhook.is_disabled,
            failures=0,
            rests_until=0.0,
        )
        self._webhooks[webhook.id] = new, kept if secret is None else secret
        return True

    async def remove_webhook(self, id: str) -> bool:
        for kept in self._of(id):
            del self._kept[kept.delivery.id]
        return self._webhooks.pop(id, None) is not None

    async def tell(self, happening: Happening) -> int:
        told = 0
        for webhook, _ in list(self._webhooks.values()):
            if webhook.wants(happening):
                told += self._add(webhook, happening) is not None
        return told

    async def ping(self, id: str, happening: Happening) -> Delivery | None:
        return self._add(self._webhooks[id][0], happening) if id in self._webhooks else None

    def _add(self, webhook: Webhook, happening: Happening) -> Delivery | None:
        namespace = happening.repository.partition("/")[0]
        waiting = [kept.delivery.happening for kept in self._of(webhook.id) if kept.waits]
        share = sum(each.repository.partition("/")[0] == namespace for each in waiting)
        is_full = len(waiting) >= MOST_WAITING or (
            not webhook.namespace
            and happening.subject is not Subject.PING
            and len(waiting) >= MOST_WAITING // 2
            and share >= MOST_OF_NAMESPACE
        )
        if is_full:
            self._alter(webhook.id, dropped=webhook.dropped + 1)
            return None
        id = f"{next(self._ids):08x}"
        delivery = Delivery(id, webhook.id, happening, happening.at, next_at=happening.at)
        self._kept[id] = _Kept(delivery)
        return delivery

    async def claim(
        self,
        now: float,
        until: float,
        count: int,
        but_webhooks: Collection[str] = (),
        but_namespaces: Collection[str] = (),
    ) -> Sequence[Due]:
        found: dict[str, _Kept] = {}
        for kept in self._kept.values():
            webhook, _ = self._webhooks[kept.delivery.webhook]
            due_at = max(kept.delivery.next_at or 0.0, kept.claimed_until, webhook.rests_until)
            if (
                kept.waits
                and due_at <= now
                and not webhook.is_disabled
                and webhook.id not in (*but_webhooks, *found)
                and webhook.namespace not in but_namespaces
            ):
                found[webhook.id] = kept
        chosen = sorted(found.values(), key=lambda kept: kept.delivery.next_at or 0.0)[:count]
        for kept in chosen:
            kept.claimed_until = until
        return [Due(kept.delivery, *self._webhooks[kept.delivery.webhook]) for kept in chosen]

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
        if (kept := self._kept.get(id)) is None:
            return
        kept.claimed_until = 0.0
        kept.delivery = replace(
            kept.delivery,
            state=state,
            status=status,
            words=words,
            attempts=kept.delivery.attempts + 1,
            next_at=next_at,
            ended_at=None if state is DeliveryState.WAITING else now,
        )
        webhook, _ = self._webhooks[kept.delivery.webhook]
        failures = 0 if rests_until is None else webhook.failures + 1
        self._alter(webhook.id, failures=failures, rests_until=rests_until or 0.0)

    async def redeliver(self, id: str, webhook: str, now: float) -> Delivery | None:
        kept = self._kept.get(id)
        if kept is None or kept.delivery.webhook != webhook:
            return None
        if not kept.waits:
            kept.delivery = Delivery(id, webhook, kept.delivery.happening, kept.delivery.created_at)
        kept.delivery = replace(kept.delivery, next_at=now)
        self._alter(webhook, rests_until=0.0)
        return kept.delivery

    async def deliveries(
        self, webhook: str, count: int = 50, before: float | None = None
    ) -> Sequence[Delivery]:
        found = [
            kept.delivery
            for kept in reversed(self._of(webhook))
            if before is None or kept.delivery.created_at < before
        ]
        return found[:count]

    async def trim_deliveries(self, now: float, give_up_before: float) -> int:
        given_up = 0
        for kept in self._kept.values():
            if kept.waits and kept.delivery.created_at < give_up_before:
                kept.delivery = replace(
                    kept.delivery,
                    state=DeliveryState.FAILED,
                    next_at=None,
                    ended_at=now,
                    words=f"given up; {kept.delivery.words}",
                )
                given_up += 1
        for id in self._webhooks:
            over = [kept.delivery for kept in self._of(id) if not kept.waits]
            old = {each.id for each in over if each.created_at < now - KEPT}
            for delivery in over[:-MOST_KEPT]:
                old.add(delivery.id)
            for each in old:
                del self._kept[each]
        return given_up

    async def backlog(self) -> Backlog:
        waiting = [kept.delivery for kept in self._kept.values() if kept.waits]
        return Backlog(
            len(waiting),
            min((delivery.happening.at for delivery in waiting), default=None),
            sum(webhook.dropped for webhook, _ in self._webhooks.values()),
        )
