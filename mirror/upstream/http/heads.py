"""How long the head of an answer may be.

Registries and what stands in front of them send long ones: signed URLs, challenges with a scope for
each project, cookies. Container clients, which are written in Go, take 10 MiB (net/http,
`MaxResponseHeaderBytes`); aiohttp by itself 8 KiB a field, and sets no bound to all of them.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ..endpoint import KIB, MIB
from . import connecting
from .connecting import Connection

LONGEST_FIELD = 256 * KIB
MOST_FIELDS = 2000
LONGEST_HEAD = MIB
"""Of the status line and all fields, with provisional answers before them (1xx). And of what comes
behind a chunked body: its trailer fields. So much can an endpoint make one connection hold."""


class _Connection(Connection):
    """It counts what came since anything was passed on: the
    head, or a piece of the body."""

    _came = 0
    _body: Any = None  # of the last answer, or what stands for none

    def set_response_params(self, **arguments: Any) -> None:
        self._came, self._body = 0, None  # a request is about to be sent
        super().set_response_params(**arguments)

    def feed_data(self, data: Any, size: int = 0) -> None:
        message, body = data
        if message.code >= 200:
            self._came, self._body = 0, body
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        before = self._passed_on()
        self._came += len(data)
        super().data_received(data)
        if self._passed_on() != before:
            self._came = 0
        elif self._came > LONGEST_HEAD:
            self._came = 0
            self._is_too_long()

    def _passed_on(self) -> int:
        return getattr(self._body, "total_bytes", 0)

    def _is_too_long(self) -> None:
        error = HttpProcessingError(message="more header or trailer fields than are taken")
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(error)
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(aiohttp.ClientPayloadError(error.message))


class Connector(connecting.Connector):
    """A Connector whose connections take no longer head than LONGEST_HEAD."""

    made = _Connection
