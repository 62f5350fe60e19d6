"""What hosted names answer beside the registry: the page, its files, and the API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, urlencode

import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict

from ....clock import Clock
from ....contracts.administration import (
    Administration,
    AdministrationError,
    AlreadyThere,
    NotAllowed,
    NotThere,
)
from ....contracts.context import Principal, RequestContext
from ....contracts.identity import Authenticator, Refusal
from ....oci.errors import RegistryError
from ...browsing.assets import Assets
from ...browsing.browsers import HEADERS, refuse_other_sites
from ...browsing.failures import Refused
from . import accounts, api, managing, organisations, repositories, signing_in
from .desk import HERE, Desk
from .doorman import Doorman
from .routes import Route, Routes
from .sessions import Sessions
from .visits import Site, Visit, read_form, target_of

log = structlog.get_logger()

_API = "/api/"
_LIFE = 60.0  # seconds that one request may take

_LINKED = ("cross-site", "same-site")
"""What a browser says of a link on another site that somebody follows to a page. Its cookie does
not come with that (SameSite=Strict)."""


class HostedPage:
    """The handler of all paths of hosted names that are not the registry's. Answers whatever comes,
    and raises nothing but the cancellation of its request.

    `url`: what clients see, "" where that is what they ask by.
    """

    def __init__(
        self,
        administration: Administration,
        authenticator: Authenticator,
        sessions: Sessions,
        clock: Clock,
        url: str = "",
    ) -> None:
        self._site = Site(url)
        self._authenticator = authenticator
        self._assets = Assets(HERE / "static")
        self._doorman = Doorman(authenticator, sessions, self._site)
        self._desk = Desk(administration, self._doorman, clock, self._site, self._assets)
        self._routes = Routes(
            [
                *signing_in.ROUTES,
                *repositories.ROUTES,
                *organisations.ROUTES,
                *accounts.ROUTES,
                *managing.ROUTES,
            ]
        )
        self._api = api.Api(administration)

    async def __call__(self, request: web.BaseRequest, context: RequestContext) -> web.Response:
        """`context`: of the request; its principal is found out here."""
        is_api = request.raw_path.startswith(_API)
        try:
            path, query = target_of(request)
            visit = Visit(request, context.lasting(_LIFE), path, query)
            async with asyncio.timeout(_LIFE):
                answer = await (self._programs(visit) if is_api else self._people(visit))
        except Exception as error:
            refused = refusal(error)
            if refused is None:
                log.exception(
                    "request_failed_unexpectedly", kind="page", request_id=context.request_id
                )
                refused = Refused(500, "UNKNOWN", "this failed unexpectedly; the log says more")
            answer = api.refused(refused) if is_api else _plain(refused)
        for cookie in answer.cookies.values():
            answer.headers.add(hdrs.SET_COOKIE, cookie.OutputString())
        answer.cookies.clear()
        answer.headers.update(HEADERS)
        answer.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        return answer

    # Programs.

    async def _programs(self, visit: Visit) -> web.Response:
        """They show a login with each request; what is in a browser's cookie is not looked at, so
        that no page of another site can have it used."""
        request = visit.request
        changes = request.method not in ("GET", "HEAD")
        refuse_other_sites(request.headers, *(() if changes else ("none",)))
        shown = request.headers.get(hdrs.AUTHORIZATION)
        found = await self._authenticator.authenticate(shown, visit.context.client)
        if isinstance(found, Refusal):
            raise api.unauthorized(found.reason, found.retry_after)
        if found.scopes is not None:
            raise Refused(
                403,
                "DENIED",
                "this token is for the registry: show a name, and a password or a personal access "
                "token, by Basic",
            )
        visit.context = replace(visit.context, principal=found)
        return await self._api.answer(visit)

    # People.

    async def _people(self, visit: Visit) -> web.Response:
        request = visit.request
        if visit.path.startswith("/static/"):
            name = visit.path.removeprefix("/static/")
            file = self._assets.answer(request, name, visit.query.get("v"))
            return file or _plain(Refused(404, "UNKNOWN", "there is no such file"))
        changes = request.method == "POST"
        refuse_other_sites(self._as_own_site(request), *(() if changes else ("none", *_LINKED)))
        visit.signed_in = await self._doorman.recognise(visit)
        if visit.signed_in is not None:
            visit.context = replace(visit.context, principal=Principal(visit.signed_in.user))
        elif not changes and request.headers.get("Sec-Fetch-Site") in _LINKED:
            return await self._once_more(visit)
        found = self._routes.find(request.method, visit.path)
        if not isinstance(found, tuple):
            status = 405 if found else 404
            words = "There is no such page." if status == 404 else "That is not done to this page."
            return await self._failed(visit, Refused(status, "UNKNOWN", words))
        route, visit.names = found
        try:
            if changes:
                visit.form = await read_form(request)
                self._check_own(visit, route)
            answer: web.Response = await route.answer(self._desk, visit)
            return answer
        except (Refused, AdministrationError) as error:
            refused = refusal(error)
            assert refused is not None  # noqa: S101 - it is one of those
            if route.again is not None and refused.status in (400, 403, 409, 404):
                return await self._again(visit, route, refused)
            return await self._failed(visit, refused)

    async def _once_more(self, visit: Visit) -> web.Response:
        """Has the browser ask from a page of this very site, so that its cookie comes, too."""
        onward = "/" + quote(visit.path.lstrip("/"), safe="/:")
        if visit.query:
            onward += f"?{urlencode(visit.query)}"
        shown = {"onward": onward}
        return await self._desk.rendered(visit, "again.html", shown)

    async def _again(self, visit: Visit, route: Route, refused: Refused) -> web.Response:
        """The page whose form was not taken, with why; only what went wrong, if that page may not
        be seen."""
        assert route.again is not None  # noqa: S101 - asked before
        visit.wrong = refused.message
        try:
            answer: web.Response = await route.again(self._desk, visit)
        except (Refused, AdministrationError):
            return await self._failed(visit, refused)
        answer.set_status(refused.status)
        return answer

    async def _failed(self, visit: Visit, refused: Refused) -> web.Response:
        shown = {"refused": refused}
        return await self._desk.rendered(visit, "error.html", shown, refused.status)

    def _as_own_site(self, request: web.BaseRequest) -> Mapping[str, str]:
        """The request's headers; behind a proxy that changes Host, with that of `hosted.url`."""
        if self._site.url and request.headers.get(hdrs.ORIGIN) == self._site.url:
            return CIMultiDict({**request.headers, hdrs.HOST: self._site.host(request)})
        return request.headers

    def _check_own(self, visit: Visit, route: Route) -> None:
        """Raises Refused for a form that no page of this session has sent. To sign in needs no
        session, and is guarded by where the form comes from alone."""
        if route.answer is signing_in.log_in:
            return
        if visit.signed_in is None:
            raise Refused(403, "SIGNED_OUT", "You are not signed in any more.")
        if not visit.signed_in.is_own(visit.written("proof")):
            raise Refused(403, "STALE_PAGE", "This page is out of date: load it again.")


def refusal(error: Exception) -> Refused | None:
    """What is answered for what was raised; None where nobody has thought of it."""
    match error:
        case Refused():
            return error
        case NotAllowed():
            return Refused(403, "DENIED", error.message)
        case NotThere():
            return Refused(404, "UNKNOWN", error.message)
        case AlreadyThere():
            return Refused(409, "CONFLICT", error.message)
        case AdministrationError():
            return Refused(400, "INVALID", error.message)
        case RegistryError():  # the records, or the store
            return Refused(error.status, error.code, error.message)
        case TimeoutError():
            return Refused(503, "UNAVAILABLE", f"this took more than {_LIFE:g} s: try again")
        case web.HTTPException():  # a body that is too long
            return Refused(error.status, "INVALID", error.reason)
    return None


def _plain(refused: Refused) -> web.Response:
    return web.Response(text=f"{refused.message}\n", status=refused.status)
