"""The form by which a browser shows the token of `admin.token_file`, and then has a cookie."""

from __future__ import annotations

from aiohttp import hdrs, web

from ..browsing.bodies import form_of
from ..browsing.browsers import refuse_other_sites
from ..browsing.failures import Refused
from .guard import COOKIE, LIFE, Guard
from .templates import Templates


def add_login(application: web.Application, guard: Guard, templates: Templates) -> None:
    """The form itself is what `/` answers to whoever has not logged in."""

    async def log_in(request: web.Request) -> web.StreamResponse:
        refuse_other_sites(request.headers, "none")
        form = await form_of(request)
        try:
            right = guard.is_token(str(form.get("token", "")), request.remote or "")
            wrong = "" if right else "that is not the token of admin.token_file"
            status = 403
        except Refused as refused:
            wrong, status = refused.message, refused.status
        if wrong:
            shown = {"wrong": wrong}
            return templates.answer("login.html", shown, status)
        answer = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        session = guard.new_session()
        answer.set_cookie(COOKIE, session, max_age=LIFE, httponly=True, samesite="Strict")
        return answer

    async def log_out(request: web.Request) -> web.StreamResponse:
        refuse_other_sites(request.headers, "none")
        answer = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        answer.del_cookie(COOKIE)
        return answer

    application.router.add_post("/login", log_in)
    application.router.add_post("/logout", log_out)
