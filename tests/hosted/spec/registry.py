"""A hosted registry in a process of its own, and a plain client of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror.server.control import ask

from ...faults.house import Mirror

PORT = 5002
USER, PASSWORD = "ann", "correct horse battery"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"

Headers = Mapping[str, str]
Body = bytes | Iterator[bytes] | None


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's word for what went wrong ("Error Codes")."""
        error = self.json["errors"][0]
        assert set(error) >= {"code", "message", "detail"}
        return str(error["code"])


@dataclass(frozen=True)
class Registry:
    """`address`: where it is. One repository is a test's own: `team/` and a random name."""

    address: str
    login: str = f"{USER}:{PASSWORD}"

    def ask(
        self, method: str, path: str, body: Body = None, headers: Headers | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, PORT, timeout=30)
        shown = base64.b64encode(self.login.encode()).decode()
        sent = {"Authorization": f"Basic {shown}"} if self.login else {}
        try:
            connection.request(
                method, path, body, {**sent, **(headers or {})}, encode_chunked=not _sized(body)
            )
            found = connection.getresponse()
            return Answer(found.status, found.headers, found.read())
        finally:
            connection.close()

    def new_repository(self) -> Repository:
        return Repository(self, f"team/{random.getrandbits(64):x}")


def _sized(body: Body) -> bool:
    return body is None or isinstance(body, bytes)


@dataclass(frozen=True)
class Repository:
    registry: Registry
    name: str

    def ask(
        self, method: str, path: str, body: Body = None, headers: Headers | None = None
    ) -> Answer:
        """`path` is below the repository's."""
        return self.registry.ask(method, f"/v2/{self.name}/{path}", body, headers)

    def begin(self) -> str:
        """The location of a new session."""
        answer = self.ask("POST", "blobs/uploads/", headers={"Content-Length": "0"})
        assert answer.status == 202
        return self.location(answer)

    def location(self, answer: Answer) -> str:
        """Relative: behind a proxy, clients refuse another scheme than they asked by."""
        found = answer.headers["Location"]
        assert found.startswith(f"/v2/{self.name}/"), found
        return str(found)

    def push(self, data: bytes, algorithm: str = "sha256") -> str:
        """A blob; its digest."""
        digest = digest_of(data, algorithm)
        answer = self.ask("POST", f"blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer.body
        return digest

    def put(self, manifest: bytes, reference: str = "", media_type: str = IMAGE) -> Answer:
        """By its digest where no reference is given."""
        reference = reference or digest_of(manifest)
        headers = {"Content-Type": media_type}
        return self.ask("PUT", f"manifests/{reference}", manifest, headers)

    def put_image(self, tag: str = "", layers: Sequence[bytes] = (b"layer",), **more: Any) -> bytes:
        """The manifest's bytes."""
        for data in (b"{}", *layers):
            self.push(data)
        made = image(layers, **more)
        answer = self.put(made, tag)
        assert answer.status == 201, answer.body
        return made


def image(layers: Sequence[bytes] = (b"layer",), /, **more: Any) -> bytes:
    """An image's manifest; `more` are other fields, or others in place of these."""
    made = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(b"{}", CONFIG),
        "layers": [descriptor(data, LAYER) for data in layers],
    }
    return json.dumps({**made, **more}).encode()


def index(manifests: Sequence[bytes], **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                descriptor(each, json.loads(each).get("mediaType", IMAGE)) for each in manifests
            ],
            **more,
        }
    ).encode()


class HostedMirror(Mirror):
    """With a port of its own for what is hosted."""

    def __post_init__(self) -> None:
        self.keys = {**self.keys, "hosted": {"listen": f"{self.address}:{PORT}"}}
        super().__post_init__()


async def _make_users(mirror: Mirror) -> None:
    """`ann`, who maintains the organisation `team`."""
    for command, given in (
        ("user-add", {"name": USER, "password": PASSWORD}),
        ("org-add", {"name": "team"}),
        ("org-member", {"name": "team", "user": USER, "role": "maintainer"}),
    ):
        await ask(mirror.storage, command, **given)


def started(mirror: Mirror) -> Registry:
    async def start() -> None:
        await mirror.start()
        await _make_users(mirror)

    try:
        asyncio.run(start())
    except BaseException:
        mirror.kill()
        raise
    return Registry(mirror.address)
