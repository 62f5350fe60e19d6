"""One request for the page or its API: who asks, by which name, for what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import parse_qsl, unquote, urlsplit

from aiohttp import hdrs, web

from ....contracts.context import RequestContext
from ....frozen import dataclass
from ...browsing.bodies import form_of
from ...browsing.failures import Refused
from ...v2.target import split
from .sessions import SignedIn

_HOST = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,255}", re.ASCII)
_MAX_FIELDS = 32
_LONGEST = 1024  # characters of a value in a query
_PATIENCE = 30.0  # seconds that a body may take


@dataclass(slots=True)
class Visit:
    """`path` is decoded; `names` are the parts of it that the route names. `wrong`: why what was
    sent was not done, where the page is shown once more for that."""

    request: web.BaseRequest
    context: RequestContext
    path: str
    query: Mapping[str, str]
    signed_in: SignedIn | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    wrong: str = ""

    def asked(self, name: str, longest: int = 256) -> str:
        """A value of the query, cut; "" where it has none."""
        return self.query.get(name, "").strip()[:longest]

    def written(self, name: str) -> str:
        """A value of the form, "" where it has none."""
        return self.form.get(name, "").strip()


def target_of(request: web.BaseRequest) -> tuple[str, Mapping[str, str]]:
    """The decoded path, and the query: of a field that comes twice, the last. Raises Refused."""
    path, query = split(request.raw_path)
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Refused(400, "INVALID", "the query has too many fields") from None
    return unquote(path), {name: value[:_LONGEST] for name, value in fields}


async def read_form(request: web.BaseRequest) -> Mapping[str, str]:
    """Of a field that comes twice, all values, in lines. Raises Refused."""
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await form_of(request)
    except TimeoutError:
        raise Refused(408, "SLOW", "the form did not come in time") from None
    return {name: "\n".join(map(str, found.getall(name))) for name in found}


@dataclass(frozen=True, slots=True)
class Site:
    """`url`: what clients see, where the configuration says so (`hosted.url`)."""

    url: str = ""

    def host(self, request: web.BaseRequest) -> str:
        """What stands before a repository's name in `docker pull`."""
        if self.url:
            return urlsplit(self.url).netloc
        asked = request.headers.get(hdrs.HOST, "")
        return asked if _HOST.fullmatch(asked) else "registry"

    def is_secure(self, request: web.BaseRequest) -> bool:
        """Whether the browser speaks TLS: with this process, or with the proxy before it that
        `hosted.url` names. By another name than that it may speak plain HTTP, and would not keep a
        cookie that is Secure."""
        protocol = getattr(request, "protocol", None)
        if request.scheme == "https" or getattr(protocol, "tls", None) is not None:
            return True
        own = urlsplit(self.url)
        return own.scheme == "https" and own.netloc == request.headers.get(hdrs.HOST, "")
