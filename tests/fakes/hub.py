"""A small Docker Hub: a registry, its token realm, and a blob host that it redirects to.

    async with Hub() as hub:
        digest = hub.add_blob(b"...")
        hub.fail("blobs", status(503), times=2)
        ...
        assert hub.count("blobs", "GET") == 3

Three HTTP servers on 127.0.0.1 in this process (see `Servers`).
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from .servers import Fault, Seen, Servers
from .shelf import OCI_INDEX, OCI_MANIFEST, Shelf, blob_answer

__all__ = [
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Fault",
    "Hub",
    "Seen",
    "basic",
    "cut",
    "hang",
    "page",
    "status",
]


def status(code: int, headers: Mapping[str, str] | None = None, body: str | bytes = b"") -> Fault:
    """Answers with this status, and does nothing."""

    async def fault(request: web.Request) -> web.StreamResponse:
        data = body.encode() if isinstance(body, str) else body
        return web.Response(status=code, headers=headers, body=data)

    return fault


def page() -> Fault:
    """A login page with status 200, as captive portals and vanished accelerators send it."""
    return status(200, {"Content-Type": "text/html"}, "<html><body>Sign in</body></html>")


def cut(
    data: bytes = b"",
    announced: int | None = None,
    code: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Closes the connection: before any answer, or after `data` of an `announced` longer body."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=code, headers=headers)
        if announced is not None:
            response.content_length = announced
            await response.prepare(request)
            await response.write(data)
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def hang(until: asyncio.Event, data: bytes = b"", announced: int | None = None) -> Fault:
    """Says nothing until the event; or stops in the middle of a body, and is cut then."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced is not None:
            response.content_length = announced
            await response.prepare(request)
            await response.write(data)
        await until.wait()
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def basic(username: str, password: str) -> str:
    """The Authorization header of this login (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Hub(Servers, Shelf):
    """See the module. Attributes may be set at any time, and hold from the next request on."""

    def __init__(self) -> None:
        Servers.__init__(self)
        Shelf.__init__(self)
        self.anonymous = True  # the realm gives tokens to those who show no login
        self.login: tuple[str, str] | None = None  # the one login that the realm knows
        self.more_logins: list[tuple[str, str]] = []
        self.identity_tokens: dict[str, str] = {}  # that it changes by POST: whose
        self.forms: list[dict[str, str]] = []  # that were posted to the realm
        self.closed: set[tuple[str, str]] = set()  # login and repository that it may not read
        self.closed_by = 401  # or 403, or 404
        self.lacking: set[tuple[str, str]] = set()  # repository and digest that it does not show
        self.limit: int | None = None  # GETs of manifests that each login has, and the anonymous
        self.window = 21600
        self.source = "192.0.2.7"
        self.pulls: Counter[str] = Counter()
        self.challenge = "bearer"  # or "basic", or "none": everybody may read
        self.lines: Callable[[str], list[str]] = self._lines  # of WWW-Authenticate, by the scope
        # Which scope's token it takes, by repository and kind: manifests, blobs, tags, referrers.
        self.scope_of: Callable[[str, str], str] = lambda name, kind: f"repository:{name}:pull"
        self.hidden: int | None = None  # the status, in place of a challenge, but for /v2/
        self.redirects = True  # blobs are redirected to the blob host
        self.head_digest = True  # HEAD of a manifest tells its digest
        self.path = ""  # what stands before /v2/
        self.elsewhere: Fault = status(404)  # the answer at paths that are none of a registry's
        self.token_answer: Callable[[str], dict[str, object]] = lambda token: {
            "token": token,
            "expires_in": 300,
        }
        self.realm_url = ""
        self.blobs_url = ""
        self.url = ""
        self.tokens: dict[str, str] = {}  # token: scope
        self.accounts: dict[str, str] = {}  # token: whose login it was for
        self._signatures: set[str] = set()

    async def __aenter__(self) -> Self:
        self.url = await self.serve("registry", self._registry)
        self.realm_url = await self.serve("realm", self._realm) + "/token"
        self.blobs_url = await self.serve("blobs", self._blob_host)
        return self

    # What happens to it

    def revoke_tokens(self) -> None:
        """No token given so far is good any more."""
        self.tokens.clear()

    # How it answers

    async def _registry(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{self.path}/v2/"):
            return await self.elsewhere(request) or web.Response(status=404)
        path = request.path.removeprefix(self.path)
        if path == "/v2/":
            return self.ping(request)
        match = re.fullmatch(
            r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|referrers|tags)/(?P<what>[^/]+)",
            path,
        )
        if match is None:
            return await self.elsewhere(request) or web.Response(status=404)
        name, kind, what = match["name"], match["kind"], match["what"]
        scope = self.scope_of(name, kind)
        if not self._may_read(request, scope):
            return self._refused(scope)
        if (self._account(request), name) in self.closed:
            return (
                self._refused(scope) if self.closed_by == 401 else _error(self.closed_by, "DENIED")
            )
        if (name, what) in self.lacking:
            return _error(404, "BLOB_UNKNOWN" if kind == "blobs" else "MANIFEST_UNKNOWN")
        if kind == "blobs":
            return self._blob(request, what)
        if kind == "tags":
            return self._tag_list(request, name)
        if kind == "manifests":
            return self._limited(request, self._manifest(name, what))
        return _error(404, "NOT_FOUND")

    def ping(self, request: web.Request) -> web.Response:
        """Whoever shows a login or token that is good for anything is content."""
        shown = request.headers.get("Authorization", "")
        is_known = self._may_read(request, "") or shown.removeprefix("Bearer ") in self.tokens
        return web.json_response({}) if is_known else self._unauthorized("")

    def _refused(self, scope: str) -> web.Response:
        return self._unauthorized(scope) if self.hidden is None else _error(self.hidden, "UNKNOWN")

    def _may_read(self, request: web.Request, scope: str) -> bool:
        shown = request.headers.get("Authorization", "")
        if self.challenge == "none":
            return True
        if self.challenge == "basic":
            return self.login is not None and shown == basic(*self.login)
        return self.tokens.get(shown.removeprefix("Bearer ")) == scope

    def _account(self, request: web.Request) -> str:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.accounts.get(shown, "")

    def _unauthorized(self, scope: str) -> web.Response:
        lines = [("WWW-Authenticate", line) for line in self.lines(scope)]
        return web.Response(status=401, headers=CIMultiDict(lines))

    def _lines(self, scope: str) -> list[str]:
        if self.challenge != "bearer":
            return ['Basic realm="hub"']
        named = f',scope="{scope}"' if scope else ""
        return [f'Bearer realm="{self.realm_url}",service="hub"{named}']

    def _manifest(self, name: str, reference: str) -> web.Response:
        digest = self.tags.get(name, {}).get(reference, reference)
        if digest not in self.manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        data, media_type = self.manifests[digest]
        headers = {"Content-Type": media_type}
        if self.head_digest:
            headers["Docker-Content-Digest"] = digest
        return web.Response(body=data, headers=headers)

    def _limited(self, request: web.Request, answer: web.Response) -> web.Response:
        """As Docker Hub counts: GETs of manifests, by login."""
        if self.limit is None:
            return answer
        account = self._account(request)
        spent = request.method == "GET" and self.pulls[account] >= self.limit
        if request.method == "GET" and not spent and answer.status == 200:
            self.pulls[account] += 1
        if spent:
            answer = _error(429, "TOOMANYREQUESTS")
        window = f";w={self.window}"
        answer.headers["ratelimit-limit"] = f"{self.limit}{window}"
        answer.headers["ratelimit-remaining"] = f"{self.limit - self.pulls[account]}{window}"
        answer.headers["docker-ratelimit-source"] = self.source
        return answer

    def _tag_list(self, request: web.Request, name: str) -> web.Response:
        if name not in self.tags:
            return _error(404, "NAME_UNKNOWN")
        tags = sorted(tag for tag in self.tags[name] if tag > request.query.get("last", ""))
        count = int(request.query.get("n", len(tags)))
        headers = {}
        if count < len(tags):
            tags = tags[:count]
            headers["Link"] = (
                f'<{self.path}/v2/{name}/tags/list?last={tags[-1]}&n={count}>; rel="next"'
            )
        return web.json_response({"name": name, "tags": tags}, headers=headers)

    def _blob(self, request: web.Request, digest: str) -> web.Response:
        if digest not in self.blobs:
            return _error(404, "BLOB_UNKNOWN")
        if not self.redirects:
            return blob_answer(request, self.blobs[digest], digest)
        signature = secrets.token_hex(8)
        self._signatures.add(signature)
        location = f"{self.blobs_url}/data/{digest}?signature={signature}"
        return web.Response(status=307, headers={"Location": location}, text="moved")

    async def _blob_host(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            return web.Response(status=400, text="only one way to authenticate, please")
        if request.query.get("signature") not in self._signatures:
            return web.Response(status=403, text="expired")
        digest = request.path.rpartition("/")[2]
        return blob_answer(request, self.blobs[digest], digest)

    async def _realm(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return await self._change(request)
        shown = request.headers.get("Authorization")
        logins = [login for login in (self.login, *self.more_logins) if login is not None]
        account = next((login[0] for login in logins if shown == basic(*login)), "")
        known = bool(account)
        if (shown is not None and not known) or (shown is None and not self.anonymous):
            return web.json_response({"details": "incorrect username or password"}, status=401)
        asked = {"scope": " ".join(request.query.getall("scope", []))}
        return web.json_response(self.token_answer(self._token(asked, account)))

    async def _change(self, request: web.Request) -> web.Response:
        """An identity token for an access token (OAuth 2.0), as Azure's registries do."""
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.forms.append(form)
        if not self.identity_tokens:
            return _error(404, "NOT_FOUND")
        if form.get("grant_type") != "refresh_token" or not form.get("client_id"):
            return web.json_response({"error": "invalid_request"}, status=400)
        account = self.identity_tokens.get(form.get("refresh_token", ""))
        if account is None:
            return _error(401, "UNAUTHORIZED")
        answer = {"access_token": self._token(form, account), "refresh_token": "another-one"}
        return web.json_response(answer)

    def _token(self, asked: Mapping[str, str], account: str) -> str:
        token = secrets.token_urlsafe(24)
        self.tokens[token] = asked.get("scope", "")
        self.accounts[token] = account
        return token


def _error(code: int, word: str) -> web.Response:
    return web.json_response({"errors": [{"code": word, "message": word.lower()}]}, status=code)
