"""The site `token`: tokens for clients, by Docker's token specification.

Never a refresh token: with one the docker CLI drops the password and stores an identity token, and
podman refuses the login.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs

from aiohttp import hdrs, web

from ...contracts.identity import IssuedToken, Refusal, TokenRealm
from ...contracts.registry import Outcome
from ...oci.errors import BadRequest, NameUnknown, Unauthorized, Unsupported
from ...oci.scopes import asked_scopes
from ..http.receiving import Receiver
from ..v2.access_log import Exchange
from ..v2.reading import JSON, head_of
from ..v2.target import TargetKind, split
from .bodies import RequestBody
from .challenge import REALM

_MOST_PARAMETERS = 256
_LONGEST_FORM = 64 << 10  # bytes
_PATIENCE = 10.0  # seconds

_METHODS = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST)
_NOT_KEPT = {"Cache-Control": "no-store", "Vary": "Authorization"}


class Realm:
    """GET with Basic, and POST of a form as OAuth 2 has it (grant_type=password)."""

    def __init__(self, realm: TokenRealm) -> None:
        self._realm = realm
        self._receiver = Receiver()  # of which a form makes no use

    async def __call__(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        exchange.kind = TargetKind.PING
        path, query = split(request.raw_path)
        if path.rstrip("/") != f"/{REALM}":
            raise NameUnknown("of the token realm there is no more than its root")
        if request.method not in _METHODS:
            raise Unsupported("a token is asked for by GET or POST")
        if request.method == hdrs.METH_POST:
            form = await RequestBody(request, _PATIENCE, self._receiver).whole(_LONGEST_FORM)
            given = _parameters(form.decode("utf-8", "replace"))
            authorization: str | None = _authorization(given)
        else:
            given = _parameters(query)
            authorization = request.headers.get(hdrs.AUTHORIZATION)
        service = _one(given, "service")
        if service and service != self._realm.service:
            # Who was sent here by another registry is to show it no token of this one.
            raise BadRequest(f"tokens are given for {self._realm.service} here")
        asked = asked_scopes(given.get("scope", ()))
        found = await self._realm.issue(authorization, asked, exchange.context.client)
        if isinstance(found, Refusal):
            raise Unauthorized(found.reason, retry_after=found.retry_after or None)
        return _answer(request, exchange, found)


def _parameters(text: str) -> Mapping[str, Sequence[str]]:
    try:
        return parse_qs(text, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise BadRequest(f"a token is asked for in {_MOST_PARAMETERS} parameters at most") from None


def _one(given: Mapping[str, Sequence[str]], name: str) -> str:
    return (given.get(name) or ("",))[0]


def _authorization(form: Mapping[str, Sequence[str]]) -> str | None:
    """What the form says in the words of a header."""
    if _one(form, "grant_type") != "password":
        raise BadRequest("grant_type: password is the only one; refresh tokens are never given")
    login = f"{_one(form, 'username')}:{_one(form, 'password')}"
    return "Basic " + base64.b64encode(login.encode("utf-8", "replace")).decode()


def _answer(
    request: web.BaseRequest, exchange: Exchange, issued: IssuedToken
) -> web.StreamResponse:
    told = {
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "issued_at": datetime.fromtimestamp(int(issued.issued_at), UTC).isoformat(),
    }
    data = json.dumps(told).encode()
    exchange.status, exchange.outcome = 200, Outcome.HIT
    exchange.due = exchange.sent = len(data) if request.method != hdrs.METH_HEAD else 0
    return web.Response(body=data, headers=head_of(exchange, {**JSON, **_NOT_KEPT}))
