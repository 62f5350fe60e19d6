"""Webhooks: made, tried, removed; what they were told, and telling it once more."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Sequence

from ...contracts.administration import NewWebhook, NotAllowed, NotThere, NotValid
from ...contracts.context import RequestContext
from ...contracts.webhooks import (
    MOST_WAITING,
    MOST_WEBHOOKS,
    Delivery,
    Happening,
    Subject,
    Webhook,
    WebhookRecords,
)
from . import names
from .gate import Gate

_LONGEST_SECRET = 256
_LEAST_SECRET = 16


class HostedWebhooks:
    def __init__(
        self, gate: Gate, records: WebhookRecords, refused: Callable[[str], str | None]
    ) -> None:
        """`refused`: why no webhook may lead to this address, as far as that is seen by it alone;
        what its name leads to is looked at when it is told."""
        self._gate = gate
        self._records = records
        self._refused = refused

    async def list(self, context: RequestContext, namespace: str) -> Sequence[Webhook]:
        await self._is_for(context, namespace, "webhook list", changes=False)
        return await self._records.webhooks(namespace)

    async def add(
        self,
        context: RequestContext,
        namespace: str,
        url: str,
        subjects: Sequence[Subject],
        pattern: str = "*",
        secret: str = "",
    ) -> NewWebhook:
        await self._is_for(context, namespace, "webhook add")
        wanted = tuple(dict.fromkeys(subjects))
        if not wanted or Subject.PING in wanted:
            raise NotValid("say what the webhook is told of: push, delete")
        if Subject.FILL in wanted and namespace:
            raise NotValid("what the mirror fetches is told to webhooks of administrators alone")
        if secret and not _LEAST_SECRET <= len(secret) <= _LONGEST_SECRET:
            raise NotValid(
                f"a webhook's secret has {_LEAST_SECRET} to {_LONGEST_SECRET} characters; "
                "without one it is made"
            )
        host = names.host_of(url)
        if reason := self._refused(url):
            raise NotValid(f"no webhook may lead to {host}: {reason}")
        webhook = Webhook(
            secrets.token_hex(8),
            namespace,
            url,
            wanted,
            names.webhook_pattern(pattern),
            self._gate.clock.wall(),
            context.principal.name,
        )
        secret = secret or secrets.token_urlsafe(32)
        if not await self._records.add_webhook(webhook, secret):
            raise NotValid(f"there are {MOST_WEBHOOKS} webhooks: remove some")
        self._gate.done(context, "webhook add", namespace or "*", f"{webhook.id} to {host}")
        return NewWebhook(webhook, secret)

    async def switch(self, context: RequestContext, id: str, *, disabled: bool) -> Webhook:
        action = "webhook disable" if disabled else "webhook enable"
        webhook = await self._webhook(context, id, action)
        changed = dataclasses.replace(webhook, is_disabled=disabled)
        if not await self._records.set_webhook(changed):
            raise NotThere("webhook", id)
        self._gate.done(context, action, webhook.namespace or "*", id)
        return changed

    async def remove(self, context: RequestContext, id: str) -> None:
        webhook = await self._webhook(context, id, "webhook remove")
        if not await self._records.remove_webhook(id):
            raise NotThere("webhook", id)
        self._gate.done(context, "webhook remove", webhook.namespace or "*", id)

    async def ping(self, context: RequestContext, id: str) -> Delivery:
        await self._webhook(context, id, "webhook ping")
        happening = Happening(Subject.PING, "", self._gate.clock.wall(), context.principal.name)
        delivery = await self._records.ping(id, happening)
        if delivery is None:
            raise NotAllowed(f"{MOST_WAITING} deliveries wait for this webhook already")
        return delivery

    async def deliveries(
        self, context: RequestContext, id: str, count: int = 50, before: float | None = None
    ) -> Sequence[Delivery]:
        await self._webhook(context, id, "webhook deliveries", changes=False)
        return await self._records.deliveries(id, names.count(count, 200), before)

    async def redeliver(self, context: RequestContext, id: str, delivery: str) -> Delivery:
        await self._webhook(context, id, "webhook redeliver")
        found = await self._records.redeliver(delivery, id, self._gate.clock.wall())
        if found is None:
            raise NotThere("delivery", delivery)
        return found

    async def _webhook(
        self, context: RequestContext, id: str, action: str, *, changes: bool = True
    ) -> Webhook:
        found = await self._records.webhook(id)
        if found is None:
            raise NotThere("webhook", id)
        try:
            await self._is_for(context, found.namespace, action, changes=changes)
        except NotThere:
            raise NotThere("webhook", id) from None
        return found

    async def _is_for(
        self, context: RequestContext, namespace: str, action: str, *, changes: bool = True
    ) -> None:
        if namespace:
            await self._gate.maintains_namespace(context, namespace, action, changes=changes)
        else:
            await self._gate.administers(context, action, "*", changes=changes)
