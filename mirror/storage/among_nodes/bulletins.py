"""Bulletins in Redis, signed with the fleet's secret: see contracts."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from ...contracts.bulletins import Words
from .exchange import Command, Exchange

log = structlog.get_logger()

_PREFIX = "registry-mirror:1:told:"
_MAC = 16  # bytes
_MOST = 4096  # bytes of one
_LONGEST = 7 * 86400.0  # seconds

# Subjects of one process. They are of the configured endpoints; beyond, none is heard.
_SUBJECTS = 2000


class FleetBulletins:
    """Each process reads all that it has joined in one command, twice a second."""

    def __init__(self, exchange: Exchange, secret: bytes) -> None:
        self._exchange = exchange
        self._key = hmac.digest(secret, b"registry-mirror bulletins", hashlib.sha256)
        self._me = secrets.token_hex(8)
        self._joined: list[_Bulletin] = []
        self._asked: Sequence[_Bulletin] = ()
        exchange.news(self._ask, self._told)

    def join(self, subject: str, hear: Callable[[Words], None]) -> _Bulletin:
        name = _PREFIX + self.mac(subject.encode()).hex()
        bulletin = _Bulletin(self, name, hear)
        self._joined.append(bulletin)
        return bulletin

    def leave(self, bulletin: _Bulletin) -> None:
        if bulletin in self._joined:
            self._joined.remove(bulletin)

    def tell(self, name: str, words: Words, seconds: float) -> None:
        data = json.dumps({**words, "by": self._me}).encode()
        if len(data) > _MOST or not seconds > 0:
            return
        value = self.mac(name.encode() + data) + data
        milliseconds = int(min(seconds, _LONGEST) * 1000) + 1
        self._exchange.later(name, lambda: ("SET", name, value, "PX", milliseconds))

    def mac(self, what: bytes) -> bytes:
        return hmac.digest(self._key, what, hashlib.sha256)[:_MAC]

    def _ask(self) -> Command | None:
        self._asked = tuple(self._joined[:_SUBJECTS])
        return ("MGET", *(each.name for each in self._asked)) if self._asked else None

    def _told(self, values: object) -> None:
        if not isinstance(values, list) or len(values) != len(self._asked):
            return
        for bulletin, value in zip(self._asked, values, strict=True):
            if isinstance(value, bytes) and value != bulletin.last:
                bulletin.last = value
                self._hear(bulletin, value)

    def _hear(self, bulletin: _Bulletin, value: bytes) -> None:
        mac, data = value[:_MAC], value[_MAC:]
        if len(data) > _MOST or not hmac.compare_digest(
            mac, self.mac(bulletin.name.encode() + data)
        ):
            return
        try:
            words = json.loads(data)
            if words["by"] != self._me and bulletin in self._joined:
                bulletin.hear(words)
        except (ValueError, TypeError, LookupError) as error:  # of another version
            log.debug("bulletin_unread", reason=type(error).__name__)


@dataclass(eq=False, slots=True)
class _Bulletin:
    of: FleetBulletins
    name: str
    hear: Callable[[Words], None]
    last: bytes = field(default=b"", repr=False)

    def tell(self, words: Words, seconds: float) -> None:
        self.of.tell(self.name, words, seconds)

    def mark(self, secret: str) -> str:
        return self.of.mac(b"secret\0" + secret.encode()).hex()

    def leave(self) -> None:
        self.of.leave(self)
