"""Hosted names before records in memory: two organisations, whose people know nothing of each
other."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import RawTestServer

from mirror.contracts.administration import RetentionPlan
from mirror.contracts.context import ANONYMOUS, Principal, PrincipalKind, RequestContext
from mirror.contracts.hosted import HostedManifest, Visibility
from mirror.contracts.identity import (
    AuditEntry,
    Organisation,
    Refusal,
    Right,
    Role,
    User,
    secret_hash,
)
from mirror.contracts.registry import BytesContent, Outcome
from mirror.events import Events
from mirror.hosted.administration import Gate, HostedAdministration, Hosting
from mirror.identity.accounts import Accounts
from mirror.identity.rights import HostedRights
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestUnknown
from mirror.oci.manifests import Platform
from mirror.oci.reference import Repository
from mirror.server.hosted.page.application import HostedPage
from mirror.server.hosted.page.sessions import Sessions

from ..fakes import HandClock, MemoryIdentity, MemoryRecords, MemorySessions, MemoryWebhooks

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NOW = 1_790_000_000.0


def password_of(user: str) -> str:
    return f"{user}-has-this-password"


def digest_of(data: bytes) -> Digest:
    return Digest.parse(f"sha256:{hashlib.sha256(data).hexdigest()}")


class QuickPasswords:
    async def hash(self, password: str) -> str:
        return hashlib.sha256(password.encode()).hexdigest()

    async def matches(self, password: str, hash: str) -> bool:
        return await self.hash(password) == hash


@dataclass
class Authenticator:
    """Slows a client down after three wrong passwords."""

    identity: MemoryIdentity
    passwords: QuickPasswords = field(default_factory=QuickPasswords)
    wrong: int = 0

    async def authenticate(self, authorization: str | None, client: str) -> Principal | Refusal:
        if authorization is None:
            return ANONYMOUS
        scheme, _, rest = authorization.partition(" ")
        if scheme == "Bearer":
            return Principal("ada", scopes=frozenset({("acme/app", "pull")}))
        name, _, password = base64.b64decode(rest).decode().partition(":")
        return await self.login(name, password, client)

    async def login(self, name: str, password: str, client: str) -> Principal | Refusal:
        if self.wrong >= 3:
            return Refusal("too many logins failed: wait a moment", 7.5)
        robot = await self.identity.robot_secret(name)
        if robot is not None and robot == secret_hash(password):
            return Principal(name, PrincipalKind.ROBOT)
        token = await self.identity.token(secret_hash(password))
        if token is not None and token.user == name:
            return Principal(name, read_only=token.right is Right.PULL)
        hash = await self.identity.password_hash(name)
        if hash is None or not await self.passwords.matches(password, hash):
            self.wrong += 1
            return Refusal("the name or the password is wrong")
        return Principal(name)


@dataclass
class Audit:
    clock: HandClock
    told: list[AuditEntry] = field(default_factory=list)

    def note(
        self,
        context: RequestContext,
        action: str,
        target: str,
        outcome: str = "done",
        detail: str = "",
    ) -> None:
        name = context.principal.name
        now = self.clock.wall
        self.told.append(AuditEntry(now, name, context.client, action, target, outcome, detail))

    async def entries(
        self, count: int = 100, before: float | None = None, actor: str = "", target: str = ""
    ) -> Sequence[AuditEntry]:
        found = [
            each
            for each in reversed(self.told)
            if actor in ("", each.actor) and (not target or each.target.startswith(target))
        ]
        return found[:count]


@dataclass
class Piece:
    data: bytes

    def pread(self, count: int, offset: int) -> bytes:
        return self.data[offset : offset + count]

    def close(self) -> None: ...


class Shelf:
    """A Reader and a Deleter, over the records."""

    def __init__(self, records: MemoryRecords, clock: HandClock) -> None:
        self._records = records
        self._clock = clock
        self.manifests: dict[Digest, tuple[str, bytes]] = {}
        self.blobs: dict[Digest, bytes] = {}

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        media_type, data = self.manifests[digest]
        return BytesContent(Descriptor(digest, media_type, len(data)), data, Outcome.HIT)

    async def blob(self, context: RequestContext, repository: Repository, digest: Digest) -> Piece:
        return Piece(self.blobs[digest])

    async def delete_tag(self, context: RequestContext, repository: Repository, tag: str) -> None:
        name, now = repository.name, self._clock.wall
        if not await self._records.delete_tag(name, tag, now, context.principal.name):
            raise ManifestUnknown(f"no tag {tag}")

    async def delete_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        name, now = repository.name, self._clock.wall
        if not await self._records.delete_manifest(name, digest, now, context.principal.name):
            raise ManifestUnknown(f"no manifest {digest}")


class HostedPort:
    """`url`: where it serves, once it was started."""

    def __init__(self, url: str = "") -> None:
        self.clock = HandClock(NOW)
        self.records = MemoryRecords()
        self.identity = MemoryIdentity()
        self.webhooks = MemoryWebhooks()
        self.sessions = MemorySessions()
        self.authenticator = Authenticator(self.identity)
        self.audit = Audit(self.clock)
        self.shelf = Shelf(self.records, self.clock)
        self._numbers = itertools.count(1)
        clock = self.clock.clock()
        accounts = Accounts(self.identity, wall=clock.wall, monotonic=clock.monotonic)
        rights = HostedRights(accounts, self.identity, self.records, monotonic=clock.monotonic)
        self.administration = HostedAdministration(
            Gate(self.records, self.identity, rights, self.audit, clock),
            Hosting("hosted", self.shelf, self.shelf, Events(), self._retain),
            self.authenticator.passwords,
            self.webhooks,
            lambda address: "it is nowhere" if "nowhere" in address else None,
        )
        self.page = HostedPage(
            self.administration,
            self.authenticator,
            Sessions(self.sessions, self.identity, clock),
            clock,
            url,
        )
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        context = RequestContext(f"request-{next(self._numbers)}", request.remote or "")
        return await self.page(request, context)

    def server(self) -> RawTestServer:
        return RawTestServer(self.handle)

    async def _retain(self, repository: str, is_trial: bool) -> RetentionPlan:
        return RetentionPlan(repository, ("old",), (), is_trial)

    # What is there.

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds

    async def settle(self) -> HostedPort:
        """root administers; ada, wil and rita are maintainer, writer and reader of acme; bo is
        other's maintainer."""
        for name in ("root", "ada", "wil", "rita", "bo"):
            hash = await self.authenticator.passwords.hash(password_of(name))
            await self.identity.add_user(User(name, name == "root", NOW), hash)
        for name in ("acme", "other"):
            await self.identity.add_organisation(Organisation(name, NOW))
        for user, role in (
            ("ada", Role.MAINTAINER),
            ("wil", Role.WRITER),
            ("rita", Role.READER),
        ):
            await self.identity.set_member("acme", user, role)
        await self.identity.set_member("other", "bo", Role.MAINTAINER)
        await self.push("acme/app", "v1", "v2", by="wil")
        await self.push("acme/site", "latest", by="ada", visibility=Visibility.PUBLIC)
        await self.push("other/secret", "nightly", by="bo")
        return self

    async def push(
        self,
        repository: str,
        *tags: str,
        by: str = "ada",
        visibility: Visibility = Visibility.PRIVATE,
        **more: Any,
    ) -> Digest:
        """An image with a layer of its own. `more`: of its HostedManifest."""
        run = {"Entrypoint": [f"/bin/{repository}"], "Env": [f"TAGS={tags}"]}
        config = json.dumps({"os": "linux", "architecture": "amd64", "config": run}).encode()
        layer = f"layer of {repository} {tags} {more.get('artifact_type')}".encode() * 1000
        found = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _described(config, OCI_CONFIG),
            "layers": [_described(layer, OCI_LAYER)],
        }
        data = json.dumps(found).encode()
        await self.records.create(repository, visibility, self.clock.wall, by)
        for blob in (config, layer):
            self.shelf.blobs[digest_of(blob)] = blob
            now = self.clock.wall
            await self.records.add_blob(repository, digest_of(blob), len(blob), now, by)
        manifest = HostedManifest(
            **{
                "digest": digest_of(data),
                "media_type": OCI_MANIFEST,
                "size": len(data),
                "blobs": (digest_of(config), digest_of(layer)),
                "platforms": (Platform("linux", "amd64"),),
                "image_size": len(config) + len(layer),
                "pushed_at": self.clock.wall,
                "pushed_by": by,
                **more,
            }
        )
        self.shelf.manifests[manifest.digest] = (OCI_MANIFEST, data)
        for tag in tags or (None,):
            await self.records.put_manifest(repository, manifest, tag, self.clock.wall, by)
        return manifest.digest


def _described(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data)}
