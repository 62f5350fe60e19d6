"""The face of the stand-in for Docker Hub: `python -m tests.e2e.front SETTINGS.json`.

It stands before a real registry that knows no login, and adds what Docker Hub has and that lacks: a
Bearer token realm, pull limits in headers, and blobs that are redirected to another host by signed
URLs that expire. It writes one JSON line for each request before it answers, so that who has the
answer can find the line.

The three hosts (registry, realm, blobs) are told apart by the Host header, as they are in
production; they may share an address.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout, hdrs, web

SERVICE = "registry.docker.io"
TOKEN_LIFE = 300  # seconds, as at Docker Hub
URL_LIFE = 60  # seconds
PULL_LIMIT = 5000  # manifests; only told, never enforced
ACCOUNTS = {"bob": "hunter2", "mirror": "correct-horse"}
GATED = 1_000_000  # bytes; configs and thin layers pass the gate
PIECE = 1 << 16

Response = TypeVar("Response", bound=web.StreamResponse)

_NAMED = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/[^/]+")


@dataclass(frozen=True)
class Settings:
    """`registry`, `realm` and `blobs` are URLs of this server's own three hosts."""

    origin: str  # the registry behind
    listen: list[tuple[str, int]]
    registry: str
    realm: str
    blobs: str
    requests: str  # the file of the requests' lines
    gate: str  # while this file exists, a layer's second half waits
    certificate: str | None = None  # PEM, with its key
    bytes_per_second: float | None = None  # of each blob


@dataclass(frozen=True)
class Grant:
    """What a token is good for."""

    pulls: frozenset[str]  # names of repositories
    expires: float


@dataclass
class Front:
    """The server's state: tokens live as long as the process."""

    settings: Settings
    session: ClientSession
    grants: dict[str, Grant] = field(default_factory=dict)
    pulls: int = 0
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Sends a request to the host that it names."""
        hosts = {
            "registry": (self.settings.registry, self.registry),
            "realm": (self.settings.realm, self.token),
            "blobs": (self.settings.blobs, self.blob),
        }
        for role, (url, handler) in hosts.items():
            if request.host == urlsplit(url).netloc:
                request["role"] = role
                return await handler(request)
        return web.Response(status=421, text=f"no host {request.host} here\n")

    # The realm

    async def token(self, request: web.Request) -> web.Response:
        """Docker's token protocol: GET with Basic, or the OAuth2 password grant by POST."""
        form = await request.post()
        account, password = _basic(request.headers.get("Authorization", ""))
        if form.get("grant_type") == "password":
            account, password = str(form["username"]), str(form["password"])
        if account and ACCOUNTS.get(account) != password:
            return self.note(request, web.json_response({"details": "wrong login"}, status=401))
        scopes = [*request.query.getall("scope", []), *map(str, form.getall("scope", []))]
        names = {
            scope.split(":")[1]
            for scope in " ".join(scopes).split()
            if scope.startswith("repository:") and "pull" in scope.rsplit(":", 1)[1].split(",")
        }
        allowed = {name for name in names if account or not name.startswith("private/")}
        token = secrets.token_urlsafe(24)
        self.grants[token] = Grant(frozenset(allowed), time.monotonic() + TOKEN_LIFE)
        body = {"token": token, "access_token": token, "expires_in": TOKEN_LIFE}
        return self.note(request, web.json_response(body))

    def challenge(self, name: str, error: str | None) -> web.Response:
        words = [f'realm="{self.settings.realm}/token"', f'service="{SERVICE}"']
        if name:
            words.append(f'scope="repository:{name}:pull"')
        if error:
            words.append(f'error="{error}"')
        return web.json_response(
            {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
            status=401,
            headers={"WWW-Authenticate": "Bearer " + ",".join(words)},
        )

    # The registry

    async def registry(self, request: web.Request) -> web.StreamResponse:
        match = _NAMED.fullmatch(request.path)
        name = match["name"] if match else ""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        grant = self.grants.get(token) if scheme == "Bearer" else None
        if grant is None or grant.expires < time.monotonic():
            refusal = self.challenge(name, "invalid_token" if token else None)
            return self.note(request, refusal)
        if name and name not in grant.pulls:
            return self.note(request, self.challenge(name, "insufficient_scope"))
        if match and match["kind"] == "blobs":
            return self.note(request, self.redirect(request))
        return await self.forward(request)

    async def forward(self, request: web.Request) -> web.Response:
        accept = [("Accept", value) for value in request.headers.getall("Accept", [])]
        url = self.settings.origin + request.path_qs
        async with self.session.request(request.method, url, headers=accept) as answer:
            body = await answer.read()
            kept = ("Content-Type", "Docker-Content-Digest", "ETag", "Link")
            headers = {name: answer.headers[name] for name in kept if name in answer.headers}
            if request.method == "HEAD":
                headers["Content-Length"] = answer.headers["Content-Length"]
        if "/manifests/" in request.path:
            self.pulls += request.method == "GET"
            headers["ratelimit-limit"] = f"{PULL_LIMIT};w=21600"
            headers["ratelimit-remaining"] = f"{PULL_LIMIT - self.pulls};w=21600"
            headers["docker-ratelimit-source"] = "192.0.2.7"
        headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        return self.note(request, web.Response(status=answer.status, headers=headers, body=body))

    def redirect(self, request: web.Request) -> web.Response:
        expires = int(time.time()) + URL_LIFE
        query = f"expires={expires}&signature={self.signature(request.path, expires)}"
        place = f"{self.settings.blobs}{request.path}?{query}"
        return web.Response(status=307, headers={"Location": place})

    def signature(self, path: str, expires: int) -> str:
        return hmac.new(self.key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()

    # The blob host

    async def blob(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers:
            # As the object storages do: a login beside a signature is an error.
            return self.note(request, web.Response(status=400, text="two ways to authorize\n"))
        expires = int(request.query.get("expires", 0))
        signed = self.signature(request.path, expires)
        if expires < time.time() or request.query.get("signature") != signed:
            return self.note(request, web.Response(status=403, text="signature expired\n"))
        ranges = {"Range": request.headers["Range"]} if "Range" in request.headers else {}
        url = self.settings.origin + request.path
        async with self.session.request(request.method, url, headers=ranges) as answer:
            kept = ("Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", "ETag")
            headers = {name: answer.headers[name] for name in kept if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=headers)
            self.note(request, response)
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            size = int(headers["Content-Length"])
            stop = size // 2 if size >= GATED else size
            sent = 0
            async for piece in answer.content.iter_chunked(PIECE):
                if sent + len(piece) > stop:
                    await self.pass_gate()
                await response.write(piece)
                sent += len(piece)
                if self.settings.bytes_per_second:
                    await asyncio.sleep(len(piece) / self.settings.bytes_per_second)
        return response

    async def pass_gate(self) -> None:
        while os.path.exists(self.settings.gate):
            await asyncio.sleep(0.02)

    def note(self, request: web.Request, response: Response) -> Response:
        """Writes the request's line, and returns the response."""
        line = {
            "role": request["role"],
            "method": request.method,
            "path": request.path_qs,
            "headers": list(request.headers.items()),
            "status": response.status,
            "length": response.content_length or 0,
            "digest": response.headers.get("Docker-Content-Digest", ""),
        }
        with open(self.settings.requests, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        return response


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, word = authorization.partition(" ")
    if scheme != "Basic":
        return "", ""
    account, _, password = base64.b64decode(word).decode().partition(":")
    return account, password


async def serve(settings: Settings) -> None:
    """Serves until the process is ended."""
    tls = None
    if settings.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(settings.certificate)
    timeout = ClientTimeout(total=None)
    async with ClientSession(timeout=timeout, auto_decompress=False) as session:
        app = web.Application()
        app.router.add_route(hdrs.METH_ANY, "/{path:.*}", Front(settings, session).answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        for address, port in settings.listen:
            await web.TCPSite(runner, address, port, ssl_context=tls).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Settings(**json.loads(Path(sys.argv[1]).read_text()))))
