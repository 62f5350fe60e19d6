"""Registries that answer HEAD and GET differently: whatever HEAD is answered, what GET gives comes
through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from aiohttp import web

from ..fakes.hub import OCI_MANIFEST, Fault, Hub, status
from .bodies import says_nothing
from .client import DOCKERD, SKOPEO, digest_of
from .house import House, Mirror
from .servers import bare

MANY = 100_000
LAYER = b"layer " * 1000
OTHER = "sha256:" + "0" * 64


def of_heads(fault: Fault, kind: str = "/manifests/") -> Fault:
    """The fault, for each HEAD of this kind."""

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.method != "HEAD" or kind not in request.path:
            return None
        return await fault(request)

    return answer


def of_gets(fault: Fault) -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse | None:
        return await fault(request) if request.method == "GET" else None

    return answer


def says(digest: str | None, headers: Mapping[str, str], length: int | None) -> Fault:
    """A HEAD with these headers, and no other."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        if digest is not None:
            response.headers["Docker-Content-Digest"] = digest
        if length is not None:
            response.content_length = length
        await response.prepare(request)
        return response

    return answer


def cuts() -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return answer


def open_hub(hub: Hub) -> str:
    hub.challenge = "none"
    return hub.add_image("library/redis", "7", LAYER)


async def pulls(mirror: Mirror, digest: str, agent: Mapping[str, str] = DOCKERD) -> None:
    """As dockerd, and then as skopeo, each on its own way."""
    head = await mirror.manifest("7", "HEAD", agent)
    assert (head.status, head.headers.get("Docker-Content-Digest")) == (200, digest)
    assert head.headers["Content-Type"] == OCI_MANIFEST
    assert (await mirror.manifest("7", headers=SKOPEO)).is_whole(digest)
    assert (await mirror.manifest(digest)).is_whole(digest)
    assert (await mirror.blob(digest_of(LAYER))).is_whole(digest_of(LAYER))


@pytest.mark.parametrize(
    "code", [204, 304, 400, 401, 403, 404, 405, 406, 409, 410, 414, 422, 451, 500, 501, 502, 503]
)
async def test_a_head_that_is_refused_is_asked_by_get(house: House, code: int) -> None:
    digest = open_hub(house.hub)
    house.hub.fail("registry", of_heads(status(code)), MANY)
    await pulls(await house.mirror(), digest)


async def test_a_head_that_is_refused_with_a_token_is_asked_by_get(house: House) -> None:
    digest = house.hub.add_image("library/redis", "7", LAYER)

    async def closed(request: web.Request) -> web.StreamResponse | None:
        if request.method != "HEAD" or "Authorization" not in request.headers:
            return None
        return house.hub._unauthorized("library/redis")

    house.hub.fail("registry", closed, MANY)
    await pulls(await house.mirror(), digest)


ODD_HEADS: dict[str, Callable[[str, int], Fault]] = {
    "cut": lambda digest, length: cuts(),
    "redirect to nowhere": lambda digest, length: status(307, {"Location": "http://127.0.0.1:1/"}),
    "redirect without Location": lambda digest, length: status(302),
    "redirect in a circle": lambda digest, length: status(302, {"Location": "?again"}),
    "no digest": lambda digest, length: says(None, {"Content-Type": OCI_MANIFEST}, length),
    "an ETag": lambda digest, length: says(
        None, {"Content-Type": OCI_MANIFEST, "ETag": f'"{digest}"'}, length
    ),
    "no length": lambda digest, length: says(digest, {"Content-Type": OCI_MANIFEST}, None),
    "length 0": lambda digest, length: says(digest, {"Content-Type": OCI_MANIFEST}, 0),
    "shorter": lambda digest, length: says(digest, {"Content-Type": OCI_MANIFEST}, 5),
    "longer": lambda digest, length: says(digest, {"Content-Type": OCI_MANIFEST}, length + 999),
    "json": lambda digest, length: says(digest, {"Content-Type": "application/json"}, length),
    "text": lambda digest, length: says(digest, {"Content-Type": "text/plain"}, length),
    "html": lambda digest, length: says(digest, {"Content-Type": "text/html"}, length),
    "charset": lambda digest, length: says(
        digest, {"Content-Type": f"{OCI_MANIFEST}; charset=utf-8"}, length
    ),
    "another digest": lambda digest, length: says(OTHER, {"Content-Type": OCI_MANIFEST}, length),
    "two digests": lambda digest, length: says(
        f"{digest}, {digest}", {"Content-Type": OCI_MANIFEST}, length
    ),
    "encoded": lambda digest, length: says(
        digest, {"Content-Type": OCI_MANIFEST, "Content-Encoding": "gzip"}, length
    ),
    "nothing": lambda digest, length: says(None, {}, None),
}


@pytest.mark.parametrize("odd", ODD_HEADS)
async def test_a_head_that_says_less_or_else_is_asked_by_get(house: House, odd: str) -> None:
    digest = open_hub(house.hub)
    length = len(house.hub.manifests[digest][0])
    house.hub.fail("registry", of_heads(ODD_HEADS[odd](digest, length)), MANY)
    await pulls(await house.mirror(), digest)


async def test_heads_that_are_never_answered_hold_up_no_pull(house: House) -> None:
    digest = open_hub(house.hub)
    others = [house.hub.add_image("library/redis", f"t{number}") for number in range(40)]
    house.hub.fail("registry", of_heads(says_nothing()), MANY)
    mirror = await house.mirror()
    await pulls(mirror, digest)
    tags = (mirror.manifest(f"t{number}", headers=SKOPEO) for number in range(40))
    answers = await asyncio.gather(*tags)
    assert [answer.status for answer in answers] == [200] * 40
    assert all(answer.is_whole(other) for answer, other in zip(answers, others, strict=True))


async def test_a_head_with_a_body_spoils_nothing(house: House) -> None:
    """What comes behind its answer is nobody's."""
    digest = open_hub(house.hub)
    data, media_type = house.hub.manifests[digest]
    pages = {
        "/v2/library/redis/manifests/7": (data, media_type),
        f"/v2/library/redis/manifests/{digest}": (data, media_type),
        f"/v2/library/redis/blobs/{digest_of(LAYER)}": (LAYER, "application/octet-stream"),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            body, kind = pages[path]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            if kind == media_type:
                head += f"Docker-Content-Digest: {digest}\r\n"
            writer.write(head.encode() + b"\r\n" + body)
            await writer.drain()

    async with bare(serve) as url:
        mirror = await house.mirror(url, docker_io={"freshness": {"ttl": "1ms"}})
        for _ in range(5):
            await pulls(mirror, digest)
        await mirror.stop()


async def test_missing_tags_stay_missing_and_cost_two_questions_a_time(house: House) -> None:
    open_hub(house.hub)
    mirror = await house.mirror()
    for _ in range(5):
        answer = await mirror.manifest("8")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert [one.method for one in house.hub.requests] == ["GET", "HEAD"]


async def test_a_tag_that_is_missing_is_no_limits_error_where_no_pull_is_left(house: House) -> None:
    digest = house.hub.add_image("library/redis", "7", LAYER)
    house.hub.limit = 1
    mirror = await house.mirror()
    assert (await mirror.manifest("7")).is_whole(digest)
    assert (await mirror.manifest("8")).status == 404


@pytest.mark.parametrize("claim", [OTHER, "sha512:" + "1" * 128, "nonsense", "a, b"])
async def test_a_wrong_digest_beside_the_right_bytes_of_a_digest(house: House, claim: str) -> None:
    digest = open_hub(house.hub)
    data, media_type = house.hub.manifests[digest]

    async def odd(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(digest):
            return None
        headers = {"Content-Type": media_type, "Docker-Content-Digest": claim}
        return web.Response(body=data, headers=headers)

    house.hub.fail("registry", odd, MANY)
    await pulls(await house.mirror(), digest)


# Blobs


@pytest.mark.parametrize(
    ("server", "code"),
    [
        *(("registry", code) for code in (400, 401, 403, 405, 500, 501, 503)),
        *(("blobs", code) for code in (400, 401, 403, 404, 405, 500, 501, 503)),
    ],
)
async def test_a_blobs_head_that_is_refused_is_asked_by_get(
    house: House, code: int, server: str
) -> None:
    open_hub(house.hub)
    house.hub.fail(server, of_heads(status(code), ""), MANY)
    mirror = await house.mirror()
    layer = digest_of(LAYER)
    answer = await mirror.ask(f"/v2/library/redis/blobs/{layer}", "HEAD")
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(LAYER)))
    missing = await mirror.ask(f"/v2/library/redis/blobs/{OTHER}", "HEAD")
    assert missing.status in (404, 403)


ODD_BLOBS: dict[str, Callable[[bytes], Awaitable[web.StreamResponse] | web.StreamResponse]] = {
    "206 to all": lambda data: web.Response(
        status=206,
        body=data,
        headers={"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"},
    ),
    "206 without a total": lambda data: web.Response(
        status=206, body=data, headers={"Content-Range": f"bytes 0-{len(data) - 1}/*"}
    ),
    "206 without a range": lambda data: web.Response(status=206, body=data),
    "no ranges": lambda data: web.Response(body=data, headers={"Accept-Ranges": "none"}),
    "html": lambda data: web.Response(body=data, headers={"Content-Type": "text/html"}),
    "a gzip label": lambda data: web.Response(body=data, headers={"Content-Encoding": "gzip"}),
    "an odd label": lambda data: web.Response(body=data, headers={"Content-Encoding": "utf-8"}),
    "old": lambda data: web.Response(
        body=data,
        headers={
            "Age": "99999999999",
            "Date": "yesterday",
            "Warning": '110 - "stale"',
            "Retry-After": "999999999999999999999",
            "Docker-Content-Digest": OTHER,
            "ETag": "x",
            "Expires": "0",
        },
    ),
}


@pytest.mark.parametrize("odd", ODD_BLOBS)
@pytest.mark.parametrize("length", [0, 4_000, 20_000_000])
async def test_a_blob_whose_headers_say_more_than_is_so(
    house: House, odd: str, length: int
) -> None:
    house.hub.challenge = "none"
    data = (b"\x1f\x8b" + bytes(range(256)) * (length // 256 + 1))[:length]
    digest = house.hub.add_blob(data)

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if digest not in request.path or (not length and "206" in odd):
            return None
        made = ODD_BLOBS[odd](data)
        assert isinstance(made, web.Response)
        return made

    house.hub.fail("blobs", answer, MANY)
    house.hub.fail("registry", answer, 0)
    mirror = await house.mirror()
    assert (await mirror.blob(digest)).is_whole(digest)


async def test_a_blob_without_a_length_and_its_head(house: House) -> None:
    house.hub.challenge, house.hub.redirects = "none", False
    digest = house.hub.add_blob(LAYER)

    async def chunked(request: web.Request) -> web.StreamResponse | None:
        if digest not in request.path:
            return None
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "GET":
            await response.write(LAYER)
        return response

    house.hub.fail("registry", chunked, MANY)
    mirror = await house.mirror()
    head = await mirror.ask(f"/v2/library/redis/blobs/{digest}", "HEAD")
    assert head.status == 200
    assert (await mirror.blob(digest)).is_whole(digest)


@pytest.mark.parametrize("label", ["gzip", "br", "utf-8", "aws-chunked", "none", "deflate"])
@pytest.mark.parametrize("kind", ["tag", "digest"])
async def test_a_manifest_with_a_label_that_is_not_so(house: House, label: str, kind: str) -> None:
    digest = open_hub(house.hub)
    data, media_type = house.hub.manifests[digest]

    async def labelled(request: web.Request) -> web.StreamResponse | None:
        if "/manifests/" not in request.path:
            return None
        headers = {"Content-Type": media_type, "Content-Encoding": label}
        if kind == "digest":
            headers["Docker-Content-Digest"] = digest
        return web.Response(body=data, headers=headers)

    house.hub.fail("registry", labelled, MANY)
    await pulls(await house.mirror(), digest)


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=utf-8", ""])
async def test_a_manifest_of_another_type(house: House, kind: str) -> None:
    digest = open_hub(house.hub)
    data, _ = house.hub.manifests[digest]

    async def typed(request: web.Request) -> web.StreamResponse | None:
        if "/manifests/" not in request.path:
            return None
        return web.Response(body=data, headers={"Content-Type": kind})

    house.hub.fail("registry", typed, MANY)
    await pulls(await house.mirror(), digest)


WIRES: dict[str, tuple[bytes, bytes]] = {
    "no reason": (b"HTTP/1.1 200\r\n", b""),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n", b""),
    "folded": (b"HTTP/1.1 200 OK\r\n", b"X-Note: a\r\n  b\r\n"),
    "latin": (b"HTTP/1.1 200 OK\r\n", b"X-Note: caf\xe9\r\n"),
    "empty": (b"HTTP/1.1 200 OK\r\n", b"X-Note:\r\n"),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n", b""),
    "bare lines": (b"HTTP/1.1 200 OK\n", b""),
}


@pytest.mark.parametrize("wire", WIRES)
async def test_heads_as_go_takes_them(house: House, wire: str) -> None:
    digest = open_hub(house.hub)
    data, media_type = house.hub.manifests[digest]
    start, more = WIRES[wire]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            body, kind = (LAYER, "x/y") if b"/blobs/" in asked else (data, media_type)
            head = start + more
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n".encode()
            if wire == "bare lines":
                head = head.replace(b"\r\n", b"\n") + b"\n"
            else:
                head += b"\r\n"
            writer.write(head + (b"" if asked.startswith(b"HEAD") else body))
            await writer.drain()

    async with bare(serve) as url:
        mirror = await house.mirror(url)
        await pulls(mirror, digest)
        await mirror.stop()
