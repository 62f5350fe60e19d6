"""Webhooks, and what waits for them. Each function runs within one transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from ....contracts.webhooks import (
    MOST_OF_NAMESPACE,
    MOST_WAITING,
    DeliveryState,
    Happening,
    Subject,
    Webhook,
)
from ....oci.digest import Digest
from .tables import deliveries, webhooks

WEBHOOK = (
    webhooks.c.id,
    webhooks.c.namespace,
    webhooks.c.url,
    webhooks.c.subjects,
    webhooks.c.pattern,
    webhooks.c.created_at,
    webhooks.c.created_by,
    webhooks.c.is_disabled,
    webhooks.c.waiting,
    webhooks.c.dropped,
    webhooks.c.failures,
    webhooks.c.rests_until,
)
# Of the namespace, and those of administrators.
_CONCERNED = (
    select(*WEBHOOK)
    .where(webhooks.c.namespace.in_((bindparam("namespace"), "")))
    .order_by(webhooks.c.number)
)
_ADD = insert(deliveries)
_COUNT = (
    update(webhooks)
    .where(webhooks.c.id == bindparam("of"), webhooks.c.waiting < MOST_WAITING)
    .values(waiting=webhooks.c.waiting + 1)
)
_DROP = (
    update(webhooks).where(webhooks.c.id == bindparam("of")).values(dropped=webhooks.c.dropped + 1)
)


def webhook_of(row: Sequence[Any]) -> Webhook:
    id, namespace, url, subjects, *rest = row
    return Webhook(id, namespace, url, tuple(map(Subject, subjects.split())), *rest)


def happening_text(happening: Happening) -> str:
    return json.dumps(
        {
            "subject": happening.subject.value,
            "repository": happening.repository,
            "at": happening.at,
            "by": happening.by,
            "digest": None if happening.digest is None else str(happening.digest),
            "tag": happening.tag,
            "media_type": happening.media_type,
            "size": happening.size,
        }
    )


def happening_of(text: str) -> Happening:
    found: Mapping[str, Any] = json.loads(text)
    digest = found["digest"]
    return Happening(
        Subject(found["subject"]),
        found["repository"],
        found["at"],
        found["by"],
        None if digest is None else Digest.parse(digest),
        found["tag"],
        found["media_type"],
        found["size"],
    )


def tell(connection: Connection, namespace: str, happening: Happening) -> int:
    """Adds a delivery for each webhook of the namespace, and of administrators, that wants this."""
    count = 0
    for row in connection.execute(_CONCERNED, {"namespace": namespace}).all():
        webhook = webhook_of(row)
        if not webhook.wants(happening):
            continue
        if _has_its_share(connection, webhook, namespace):
            connection.execute(_DROP, {"of": webhook.id})
        elif add(connection, webhook.id, happening):
            count += 1
    return count


def _has_its_share(connection: Connection, webhook: Webhook, namespace: str) -> bool:
    """Whether a webhook that is told of all has no more room for this namespace: others shall be
    told of, too."""
    if webhook.namespace or webhook.waiting < MOST_WAITING // 2:
        return False
    share = connection.execute(
        select(func.count()).where(
            deliveries.c.webhook == webhook.id,
            deliveries.c.state == DeliveryState.WAITING.value,
            # As `happening_text` has it. No other word of a happening may have a quotation mark.
            deliveries.c.happening.contains(f'"repository": "{namespace}/', autoescape=True),
        )
    ).scalar_one()
    return share >= MOST_OF_NAMESPACE


def add(connection: Connection, webhook: str, happening: Happening) -> str | None:
    """A delivery that waits, and is due at once: its id; None where as many wait as may."""
    if not connection.execute(_COUNT, {"of": webhook}).rowcount:
        connection.execute(_DROP, {"of": webhook})
        return None
    id = secrets.token_hex(16)
    connection.execute(
        _ADD,
        {
            "id": id,
            "webhook": webhook,
            "happening": happening_text(happening),
            "created_at": happening.at,
            "state": DeliveryState.WAITING.value,
            "next_at": happening.at,
        },
    )
    return id
