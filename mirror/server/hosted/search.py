"""/v1/: what `docker search HOST/TERM` and `podman search` ask, and nobody else any more.

docker asks /v1/_ping, and then /v1/search with its login, where it has one. podman shows none
there, and asks /v2/_catalog with its login where the answer is not 200: so who is not logged in is
told to be where nothing is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import hdrs, web

from ...contracts.context import PrincipalKind
from ...contracts.hosted import HostedRecords, HostedRepository
from ...contracts.identity import Rights
from ...contracts.registry import Outcome
from ...oci.errors import BadRequest, NameUnknown, Unauthorized, Unsupported, quoted
from ..v2.access_log import Exchange
from ..v2.reading import JSON, head_of
from ..v2.target import TargetKind, parse_query, split

# A token of docker's is for this, and not for a repository.
_SCOPE = "registry:catalog:search"
_STANDALONE = {"X-Docker-Registry-Standalone": "true", "X-Docker-Registry-Version": "0.9.0"}
_FEW, _MOST = 25, 100
_LONGEST = 256  # characters of a term
_MAX_PAGE = 100


class Search:
    """The site `v1`: repositories by a part of their name or description."""

    def __init__(self, records: HostedRecords, rights: Rights) -> None:
        self._records = records
        self._rights = rights

    async def __call__(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        path, raw_query = split(request.raw_path)
        if path.rstrip("/") not in ("/v1/_ping", "/v1/search"):
            raise NameUnknown("of the first version of the API there is /v1/search alone")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise Unsupported("a search is a GET")
        if path.startswith("/v1/_ping"):
            exchange.kind = TargetKind.PING
            return _answer(request, exchange, {"standalone": True}, _STANDALONE)
        exchange.kind = TargetKind.CATALOG
        query = parse_query(raw_query)
        term = query.get("q", "")[:_LONGEST].strip()
        count = min(_number(query, "n", _FEW) or _FEW, _MOST)
        page = min(max(_number(query, "page", 1), 1), _MAX_PAGE)
        seen = await self._rights.seen(exchange.context.principal)
        found = await self._records.repositories(seen, term, count * page)
        if not found and exchange.context.principal.kind is PrincipalKind.ANONYMOUS:
            raise Unauthorized("nothing is found for who is not logged in", scope=_SCOPE)
        shown = found[count * (page - 1) :]
        body = {
            # How many there are beyond this page is not counted: nobody shows it.
            "num_pages": page + (len(shown) == count),
            "num_results": len(found),
            "page": page,
            "page_size": count,
            "query": term,
            "results": [_result(each) for each in shown],
        }
        return _answer(request, exchange, body, {})


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"{name} is a number, not {quoted(text)}")
    return int(text)


def _result(repository: HostedRepository) -> Mapping[str, object]:
    return {
        "name": repository.name,
        "description": repository.description,
        "star_count": 0,
        "is_official": False,
        "is_automated": False,
    }


def _answer(
    request: web.BaseRequest, exchange: Exchange, body: object, headers: Mapping[str, str]
) -> web.StreamResponse:
    data = json.dumps(body).encode()
    exchange.status, exchange.outcome = 200, Outcome.HIT
    exchange.due = exchange.sent = len(data) if request.method == hdrs.METH_GET else 0
    return web.Response(body=data, headers=head_of(exchange, {**JSON, **headers}))
