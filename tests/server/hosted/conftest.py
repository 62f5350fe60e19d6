"""Hosted names over real sockets, with records and content in memory behind them."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import aiohttp
import pytest

from mirror.clock import Clock
from mirror.contracts.context import ANONYMOUS, Principal
from mirror.contracts.hosted import Seen, Visibility
from mirror.contracts.identity import Action, Refusal
from mirror.hosted.registry import HostedRegistry, Shelves
from mirror.identity.audit import HostedAudit
from mirror.identity.guard import Guard
from mirror.server.hosted.handler import HostedNames
from mirror.server.hosted.search import Search
from mirror.server.hosted.serving import HostedServing, Page
from mirror.server.http.listening import Listener
from mirror.server.http.response_cache import ResponseCache
from mirror.server.http.sending import Sender
from mirror.server.v2.access_log import AccessLog

from ...fakes import Answers, MemoryHeld, MemoryIdentity, MemoryRecords
from ...fakes.uploads import MemoryShelf, MemoryUploads
from ..conftest import ports

TEAM = Principal("team")
LOGIN = "Basic " + base64.b64encode(b"team:secret").decode()


class _OnePassword:
    """An Authenticator for whom every password is `secret`."""

    async def authenticate(self, authorization: str | None, client: str) -> Principal | Refusal:
        if authorization is None:
            return ANONYMOUS
        if authorization.startswith("Bearer "):  # the repositories that it is for
            names = authorization.removeprefix("Bearer ").split(",")
            scopes = {(name, action.value) for name in names for action in Action}
            return Principal("team", scopes=frozenset(scopes))
        if authorization == "Basic slow":
            return Refusal("too many logins have failed", retry_after=7.0)
        name, _, password = base64.b64decode(authorization.partition(" ")[2]).partition(b":")
        return await self.login(name.decode(), password.decode(), client)

    async def login(self, name: str, password: str, client: str) -> Principal | Refusal:
        return Principal(name) if password == "secret" else Refusal("wrong password")


@dataclass
class OwnNamespace:
    """Rights: each user may do all below its name, and pull what is public."""

    records: MemoryRecords

    async def may(self, principal: Principal, action: Action, repository: str) -> bool:
        if principal.scopes is not None and (repository, action.value) not in principal.scopes:
            return False
        if principal.name == repository.partition("/")[0]:
            return True
        found = await self.records.repository(repository)
        return action is Action.PULL and found is not None and found.visibility is Visibility.PUBLIC

    async def may_create(self, principal: Principal, repository: str) -> bool:
        return True

    async def seen(self, principal: Principal) -> Seen:
        return Seen(namespaces=frozenset({principal.name} - {""}))

    async def is_administrator(self, principal: Principal) -> bool:
        return False


class MemoryMarks:
    """Marks for one process."""

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    def changed(self, repository: str) -> None:
        slot = crc32(repository.encode())
        self.slots[slot] = self.slots.get(slot, 0) + 1

    def still(self, repository: str) -> Any:
        slot = crc32(repository.encode())
        mark = self.slots.get(slot, 0)
        return lambda: self.slots.get(slot, 0) == mark


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass
class Door:
    """A hosted name, and a client that has logged in as `team`."""

    url: str
    records: MemoryRecords
    held: MemoryHeld
    uploads: MemoryUploads
    marks: MemoryMarks
    told: Answers
    lines: list[str]
    client: aiohttp.ClientSession
    listener: Listener = field(repr=False, default=None)  # type: ignore[assignment]

    async def ask(
        self,
        method: str,
        path: str,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        login: str | None = LOGIN,
    ) -> tuple[int, Mapping[str, str], bytes]:
        sent = dict(headers or {})
        if login is not None:
            sent.setdefault("Authorization", login)
        from yarl import URL

        async with self.client.request(
            method, URL(self.url + path, encoded=True), data=data, headers=sent,
            skip_auto_headers=("Content-Type",),
        ) as answer:  # fmt: skip
            return answer.status, answer.headers, await answer.read()

    async def code(self, method: str, path: str, **given: Any) -> tuple[int, str]:
        """Status, and the error's code."""
        status, _, body = await self.ask(method, path, **given)
        return status, json.loads(body)["errors"][0]["code"] if body else ""

    async def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        status, *_ = await self.ask(
            "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data=data
        )
        assert status == 201, status
        return digest

    async def push_image(self, repository: str, tag: str, layer: bytes = b"layer") -> str:
        """Returns the manifest's digest."""
        config = await self.push_blob(repository, b"{}")
        blob = await self.push_blob(repository, layer)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config,
                    "size": 2,
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": blob,
                        "size": len(layer),
                    }
                ],
            }
        ).encode()
        status, headers, body = await self.ask(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            data=manifest,
            headers={"Content-Type": OCI},
        )
        assert status == 201, body
        return headers["Docker-Content-Digest"]


OCI = "application/vnd.oci.image.manifest.v1+json"


def challenge(scope: str, origin: str, error: str) -> str:
    return f'Basic realm="{origin}", scope="{scope}"' if scope else f'Basic realm="{origin}"'


@asynccontextmanager
async def hosted(
    sender: Sender,
    patience: float = 10.0,
    page: Page | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[Door]:
    """`tls`: the server's context, and a client's."""
    clock, told, lines = Clock(), Answers(), list[str]()
    records, held = MemoryRecords(), MemoryHeld(clock.wall)
    uploads, marks = MemoryUploads(held), MemoryMarks()
    rights = OwnNamespace(records)
    shelves = Shelves(MemoryShelf(held), held, uploads)  # type: ignore[arg-type]
    inner = HostedRegistry("hosted", records, shelves, rights, told, clock)
    audit = HostedAudit(MemoryIdentity(), wall=clock.wall, monotonic=clock.monotonic)
    registry = Guard(inner, rights, audit)
    log = AccessLog(lines.append, told)
    cache = ResponseCache(log)
    serving = HostedServing(
        "hosted",
        registry,
        _OnePassword(),
        challenge,
        marks,
        sites={"v1": Search(records, rights)},
        page=page,
        patience=patience,
    )
    handler = HostedNames(serving, sender, log=log, response_cache=cache, clock=clock)
    listener = Listener(
        handler,
        await ports(tls=tls is not None),
        response_cache=cache,
        events=told,
        tls=tls[0] if tls else None,
    )
    listener.start()
    host, port = listener.addresses[0]
    connector = aiohttp.TCPConnector(ssl=tls[1] if tls else True)
    async with aiohttp.ClientSession(connector=connector) as client:
        yield Door(
            f"http{'s' if tls else ''}://{host}:{port}",
            records,
            held,
            uploads,
            marks,
            told,
            lines,
            client,
            listener,
        )
    await listener.stop(0)


@pytest.fixture
async def door(sender: Sender) -> AsyncIterator[Door]:
    async with hosted(sender) as door:
        yield door
