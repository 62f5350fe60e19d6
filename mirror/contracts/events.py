"""What happens, told to whoever counts it."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """What happens inside, told to whoever counts it. Every label is from a bounded set."""

    def upstream_request(self, endpoint: str, method: str, status: str) -> None:
        """`status` is an HTTP status, or the kind of error: connect, dns, tls, timeout, cut."""

    def upstream_bytes(self, endpoint: str, count: int) -> None: ...

    def upstream_rejected(self, endpoint: str) -> None:
        """Bytes from there were not what their digest says."""

    def upstream_hedged(self, endpoint: str, won: bool) -> None:
        """This one was asked besides another that was late; whether it answered first."""

    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None:
        """`trouble`: fault, limited, or wrong."""

    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None:
        """How many manifests the endpoint gives to this login ("" for none), and still gives."""

    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None:
        """No manifest is asked for before (seconds since the epoch); 0: it may be."""

    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None:
        """Whether the endpoint, or its token realm, refuses this login."""

    def fill_started(self) -> None: ...

    def fill_ended(self, result: str) -> None:
        """`result`: committed, followed (another process did), rejected, suspended, failed, or
        uncached (there was no room)."""

    def tag_store_error(self, store: str, operation: str) -> None: ...

    def content_rotten(self) -> None:
        """A piece of content was found damaged, and set aside."""

    def credentials_dropped(self) -> None:
        """A client sent credentials to the mirror; they went no further."""

    def sent(self, kind: str, count: int) -> None:
        """Bytes of a body handed to a client."""

    def answered(
        self, kind: str, outcome: str, status: int, first_byte: float, last_byte: float
    ) -> None:
        """One request is over; both times in seconds from its arrival."""

    def answered_at_once(
        self, kind: str, outcome: str, status: int, count: int, took: float
    ) -> None:
        """So many requests are over, each within a millisecond; `took` seconds together."""


class NoMeter:
    """Counts nothing: for tests, and for commands that run beside a server."""

    def upstream_request(self, endpoint: str, method: str, status: str) -> None: ...
    def upstream_bytes(self, endpoint: str, count: int) -> None: ...
    def upstream_rejected(self, endpoint: str) -> None: ...
    def upstream_hedged(self, endpoint: str, won: bool) -> None: ...
    def upstream_breaker(self, endpoint: str, trouble: str, open: bool) -> None: ...
    def upstream_quota(self, endpoint: str, login: str, limit: int, remaining: int) -> None: ...
    def upstream_quota_until(self, endpoint: str, login: str, until: float) -> None: ...
    def upstream_login_refused(self, endpoint: str, login: str, refused: bool) -> None: ...
    def fill_started(self) -> None: ...
    def fill_ended(self, result: str) -> None: ...
    def tag_store_error(self, store: str, operation: str) -> None: ...
    def content_rotten(self) -> None: ...
    def credentials_dropped(self) -> None: ...
    def sent(self, kind: str, count: int) -> None: ...
    def answered(
        self, kind: str, outcome: str, status: int, first_byte: float, last_byte: float
    ) -> None: ...
    def answered_at_once(
        self, kind: str, outcome: str, status: int, count: int, took: float
    ) -> None: ...
