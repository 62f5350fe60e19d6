"""WebhookRecords: webhooks and their deliveries, in a database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ....contracts.webhooks import (
    KEPT,
    MOST_KEPT,
    MOST_WEBHOOKS,
    MOST_WORDS,
    Backlog,
    Delivery,
    DeliveryState,
    Due,
    Happening,
    Webhook,
)
from ....oci.reference import namespace_of
from .database import Database
from .deliveries import WEBHOOK, add, happening_of, tell, webhook_of
from .tables import deliveries, webhooks
from .words import clean

_WAITING = DeliveryState.WAITING.value
_GIVEN_UP = "given up: nobody took it for too long"

_DELIVERY = (
    deliveries.c.id,
    deliveries.c.webhook,
    deliveries.c.happening,
    deliveries.c.created_at,
    deliveries.c.state,
    deliveries.c.attempts,
    deliveries.c.next_at,
    deliveries.c.status,
    deliveries.c.words,
    deliveries.c.ended_at,
)


class HookRecords:
    """WebhookRecords (see contracts)."""

    def __init__(self, database: Database) -> None:
        self._read = database.read
        self._write = database.write

    async def webhooks(self, namespace: str | None = None) -> Sequence[Webhook]:
        return await self._read(_list, namespace)

    async def webhook(self, id: str) -> Webhook | None:
        return await self._read(_find, id)

    async def add_webhook(self, webhook: Webhook, secret: str) -> bool:
        return await self._write(_add_webhook, webhook, secret)

    async def set_webhook(self, webhook: Webhook, secret: str | None = None) -> bool:
        return await self._write(_set_webhook, webhook, secret)

    async def remove_webhook(self, id: str) -> bool:
        return await self._write(_remove_webhook, id)

    async def tell(self, happening: Happening) -> int:
        return await self._write(_tell, happening)

    async def ping(self, id: str, happening: Happening) -> Delivery | None:
        return await self._write(_ping, id, happening)

    async def claim(
        self,
        now: float,
        until: float,
        count: int,
        but_webhooks: Collection[str] = (),
        but_namespaces: Collection[str] = (),
    ) -> Sequence[Due]:
        # First a look, which takes no lock: mostly there is nothing.
        if not await self._read(_due, now, 1, but_webhooks, but_namespaces):
            return ()
        return await self._write(_claim, now, until, count, but_webhooks, but_namespaces)

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
        await self._write(_attempted, id, now, state, status, words, next_at, rests_until)

    async def redeliver(self, id: str, webhook: str, now: float) -> Delivery | None:
        return await self._write(_redeliver, id, webhook, now)

    async def deliveries(
        self, webhook: str, count: int = 50, before: float | None = None
    ) -> Sequence[Delivery]:
        return await self._read(_deliveries, webhook, count, before)

    async def trim_deliveries(self, now: float, give_up_before: float) -> int:
        return await self._write(_trim, now, give_up_before)

    async def backlog(self) -> Backlog:
        return await self._read(_backlog)


def _delivery_of(row: Sequence[Any]) -> Delivery:
    id, webhook, happening, created_at, state, *rest = row
    return Delivery(id, webhook, happening_of(happening), created_at, DeliveryState(state), *rest)


def _list(connection: Connection, namespace: str | None) -> Sequence[Webhook]:
    found = select(*WEBHOOK).order_by(webhooks.c.number)
    if namespace is not None:
        found = found.where(webhooks.c.namespace == namespace)
    return [webhook_of(row) for row in connection.execute(found)]


def _find(connection: Connection, id: str) -> Webhook | None:
    row = connection.execute(select(*WEBHOOK).where(webhooks.c.id == id)).first()
    return None if row is None else webhook_of(row)


def _written(webhook: Webhook) -> dict[str, object]:
    return {
        "url": webhook.url,
        "subjects": " ".join(each.value for each in webhook.subjects),
        "pattern": webhook.pattern,
        "is_disabled": webhook.is_disabled,
    }


def _add_webhook(connection: Connection, webhook: Webhook, secret: str) -> bool:
    of_it = webhooks.c.namespace == webhook.namespace
    there = connection.execute(select(func.count()).where(of_it)).scalar_one()
    if there >= MOST_WEBHOOKS:
        return False
    row = _written(webhook) | {
        "id": webhook.id,
        "namespace": webhook.namespace,
        "created_at": webhook.created_at,
        "created_by": webhook.created_by,
        "secret": secret,
    }
    connection.execute(insert(webhooks), row)
    return True


def _set_webhook(connection: Connection, webhook: Webhook, secret: str | None) -> bool:
    values = _written(webhook) | {"failures": 0, "rests_until": 0.0}
    if secret is not None:
        values["secret"] = secret
    mine = webhooks.c.id == webhook.id
    return connection.execute(update(webhooks).where(mine).values(values)).rowcount > 0


def _remove_webhook(connection: Connection, id: str) -> bool:
    return connection.execute(delete(webhooks).where(webhooks.c.id == id)).rowcount > 0


def _tell(connection: Connection, happening: Happening) -> int:
    return tell(connection, namespace_of(happening.repository), happening)


def _ping(connection: Connection, id: str, happening: Happening) -> Delivery | None:
    if _locked(connection, id) is None:
        return None
    made = add(connection, id, happening)
    return None if made is None else _delivery(connection, made)


def _delivery(connection: Connection, id: str) -> Delivery | None:
    row = connection.execute(select(*_DELIVERY).where(deliveries.c.id == id)).first()
    return None if row is None else _delivery_of(row)


def _due(
    connection: Connection,
    now: float,
    count: int,
    but_webhooks: Collection[str],
    but_namespaces: Collection[str],
) -> Sequence[int]:
    oldest = (
        select(func.min(deliveries.c.number))
        .where(
            deliveries.c.next_at <= now,
            deliveries.c.webhook == webhooks.c.id,
            webhooks.c.is_disabled.is_(False),
            webhooks.c.rests_until <= now,
            webhooks.c.id.not_in(sorted(but_webhooks)),
            webhooks.c.namespace.not_in(sorted(but_namespaces)),
        )
        .group_by(deliveries.c.webhook)
        .order_by(func.min(deliveries.c.next_at))
        .limit(count)
    )
    return connection.execute(oldest).scalars().all()


def _claim(
    connection: Connection,
    now: float,
    until: float,
    count: int,
    but_webhooks: Collection[str],
    but_namespaces: Collection[str],
) -> Sequence[Due]:
    numbers = _due(connection, now, count, but_webhooks, but_namespaces)
    # Another process may have claimed them a moment ago, or be at it.
    rows = connection.execute(
        select(deliveries.c.number, webhooks.c.secret, *WEBHOOK, *_DELIVERY)
        .where(
            deliveries.c.number.in_(numbers),
            deliveries.c.next_at <= now,
            deliveries.c.webhook == webhooks.c.id,
        )
        .order_by(deliveries.c.next_at, deliveries.c.number)
        .with_for_update(of=deliveries, skip_locked=True)
    ).all()
    claimed = [row[0] for row in rows]
    connection.execute(
        update(deliveries).where(deliveries.c.number.in_(claimed)).values(next_at=until)
    )
    split = 2 + len(WEBHOOK)
    return [Due(_delivery_of(row[split:]), webhook_of(row[2:split]), row[1]) for row in rows]


def _locked(connection: Connection, id: str) -> str | None:
    """The webhook's id, locked: its counts and deliveries are changed by one after the other."""
    mine = select(webhooks.c.id).where(webhooks.c.id == id).with_for_update()
    found: str | None = connection.execute(mine).scalar()
    return found


def _attempted(
    connection: Connection,
    id: str,
    now: float,
    state: DeliveryState,
    status: int | None,
    words: str,
    next_at: float | None,
    rests_until: float | None,
) -> None:
    mine = deliveries.c.id == id
    webhook = connection.execute(select(deliveries.c.webhook).where(mine)).scalar()
    if webhook is None or _locked(connection, webhook) is None:
        return
    was = connection.execute(select(deliveries.c.state).where(mine)).scalar()
    if was is None:
        return
    is_over = state is not DeliveryState.WAITING
    connection.execute(
        update(deliveries)
        .where(mine)
        .values(
            state=state.value,
            attempts=deliveries.c.attempts + 1,
            next_at=None if is_over else (now if next_at is None else next_at),
            status=status,
            words=clean(words)[:MOST_WORDS],
            ended_at=now if is_over else None,
        )
    )
    values: dict[str, object] = {
        "waiting": webhooks.c.waiting + int(not is_over) - int(was == _WAITING)
    }
    if rests_until is None:
        values |= {"failures": 0, "rests_until": 0.0}
    else:
        values |= {"failures": webhooks.c.failures + 1, "rests_until": rests_until}
    connection.execute(update(webhooks).where(webhooks.c.id == webhook).values(values))


def _redeliver(connection: Connection, id: str, webhook: str, now: float) -> Delivery | None:
    if _locked(connection, webhook) is None:
        return None
    mine = (deliveries.c.id == id) & (deliveries.c.webhook == webhook)
    state = connection.execute(select(deliveries.c.state).where(mine)).scalar()
    if state is None:
        return None
    values: dict[str, object] = {"next_at": now}
    if state != _WAITING:
        values |= {"state": _WAITING, "attempts": 0, "status": None, "words": "", "ended_at": None}
    connection.execute(update(deliveries).where(mine).values(values))
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook)
        .values(waiting=webhooks.c.waiting + int(state != _WAITING), failures=0, rests_until=0.0)
    )
    return _delivery(connection, id)


def _deliveries(
    connection: Connection, webhook: str, count: int, before: float | None
) -> Sequence[Delivery]:
    found = select(*_DELIVERY).where(deliveries.c.webhook == webhook)
    if before is not None:
        found = found.where(deliveries.c.created_at < before)
    newest = found.order_by(deliveries.c.created_at.desc(), deliveries.c.number.desc())
    return [_delivery_of(row) for row in connection.execute(newest.limit(count))]


def _trim(connection: Connection, now: float, give_up_before: float) -> int:
    total = 0
    ids = connection.execute(select(webhooks.c.id).order_by(webhooks.c.id)).scalars().all()
    for id in ids:
        if _locked(connection, id) is None:
            continue
        mine = deliveries.c.webhook == id
        given_up = connection.execute(
            update(deliveries)
            .where(mine, deliveries.c.state == _WAITING, deliveries.c.created_at < give_up_before)
            .values(state=DeliveryState.FAILED.value, next_at=None, words=_GIVEN_UP, ended_at=now)
        ).rowcount
        if given_up:
            connection.execute(
                update(webhooks)
                .where(webhooks.c.id == id)
                .values(waiting=webhooks.c.waiting - given_up)
            )
            total += given_up
        over = mine & (deliveries.c.state != _WAITING)
        connection.execute(delete(deliveries).where(over, deliveries.c.ended_at < now - KEPT))
        oldest = connection.execute(
            select(deliveries.c.number)
            .where(over)
            .order_by(deliveries.c.number.desc())
            .offset(MOST_KEPT)
            .limit(1)
        ).scalar()
        if oldest is not None:
            connection.execute(delete(deliveries).where(over, deliveries.c.number <= oldest))
    return total


def _backlog(connection: Connection) -> Backlog:
    waits = deliveries.c.state == _WAITING
    waiting, oldest = connection.execute(
        select(func.count(), func.min(deliveries.c.created_at)).where(waits)
    ).one()
    dropped = connection.execute(
        select(func.coalesce(func.sum(webhooks.c.dropped), 0))
    ).scalar_one()
    return Backlog(waiting, oldest, int(dropped))
