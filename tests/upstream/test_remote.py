"""The pull API over HTTP, of one endpoint."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from dataclasses import replace
from email.utils import formatdate

import pytest
from aiohttp import web

from mirror.asking.retry_policy import RetryPolicy
from mirror.contracts.registry import BytesContent
from mirror.contracts.upstream import StreamContent, Upstream
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RateLimited,
    Refused,
    RegistryError,
    Unavailable,
    Unknown,
    Untrustworthy,
)
from mirror.oci.ranges import ByteRange
from mirror.oci.reference import Repository
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import MIB, Trust
from mirror.upstream.failures import Unfit
from mirror.upstream.http.stream import BlobStream

from ..fakes import CONTEXT, HandClock, manifest_of
from ..fakes.hub import OCI_INDEX, OCI_MANIFEST, Fault, Hub, cut, page, status
from .conftest import QUICK, REDIS, Counts, MakeRemote

LAYER = bytes(range(256)) * 1000
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@pytest.fixture(autouse=True)
def open_hub(hub: Hub) -> None:
    hub.challenge = "none"


async def read(stream: StreamContent) -> bytes:
    data = b""
    try:
        while piece := await stream.read():
            data += piece
    finally:
        await stream.close()
    return data


def sent(data: bytes, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status(200, named, data)


def test_a_remote_is_an_upstream(remote: Remote) -> None:
    upstream: Upstream = remote
    assert upstream is remote


# Tags


async def test_a_tag_is_resolved_by_head_alone(hub: Hub, remote: Remote) -> None:
    digest = hub.add_image("library/redis", "7", LAYER)
    descriptor = await remote.resolve(CONTEXT, REDIS, "7")
    assert str(descriptor.digest) == digest
    assert descriptor.media_type == OCI_MANIFEST
    assert descriptor.size == len(hub.manifests[digest][0])
    assert [one.method for one in hub.requests] == ["HEAD"]


async def test_a_tag_of_which_nothing_is_here_comes_with_its_manifest(
    hub: Hub, remote: Remote
) -> None:
    digest = hub.add_image("library/redis", "7", LAYER)
    found = await remote.tagged(CONTEXT, REDIS, "7")
    assert isinstance(found, BytesContent)
    assert (str(found.descriptor.digest), found.data) == (digest, hub.manifests[digest][0])
    assert [one.method for one in hub.requests] == ["GET"]


async def test_where_pulls_are_counted_no_manifest_is_fetched_that_may_be_here(
    hub: Hub, remote: Remote
) -> None:
    digest = hub.add_image("library/redis", "7", LAYER)
    hub.limit = 10
    await remote.resolve(CONTEXT, REDIS, "7")  # which tells of the limit
    found = await remote.tagged(CONTEXT, REDIS, "7")
    assert isinstance(found, Descriptor)
    assert str(found.digest) == digest
    assert {one.method for one in hub.requests} == {"HEAD"}


async def test_where_no_pull_is_left_a_new_tag_is_asked_for_by_head(
    hub: Hub, remote: Remote
) -> None:
    digest = hub.add_image("library/redis", "7", LAYER)
    hub.limit = 0
    found = await remote.tagged(CONTEXT, REDIS, "7")
    assert isinstance(found, Descriptor)
    assert str(found.digest) == digest
    assert [one.method for one in hub.requests] == ["GET", "HEAD"]


async def test_all_manifest_types_are_asked_for(hub: Hub, remote: Remote) -> None:
    hub.add_image("library/redis", "7")
    descriptor = await remote.resolve(CONTEXT, REDIS, "7")
    await remote.manifest(CONTEXT, REDIS, descriptor.digest)
    assert {one.method for one in hub.requests} == {"HEAD", "GET"}
    for one in hub.requests:
        for media_type in (
            OCI_INDEX,
            OCI_MANIFEST,
            DOCKER_MANIFEST,
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ):
            assert media_type in one.headers["Accept"]


async def test_a_path_before_v2_is_kept(hub: Hub, make_remote: MakeRemote) -> None:
    with pytest.raises(ManifestUnknown):
        await make_remote(hub.url + "/mirrors/hub/v2").resolve(CONTEXT, REDIS, "7")
    assert hub.requests[0].path == "/mirrors/hub/v2/library/redis/manifests/7"


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"Docker-Content-Digest": "sha256:short", "Content-Type": OCI_MANIFEST},
        {"Docker-Content-Digest": "sha256:" + "0" * 64, "Content-Type": "application/json"},
        {"Docker-Content-Digest": "sha256:" + "0" * 64, "Content-Type": "text/html"},
    ],
)
async def test_without_a_usable_digest_the_tag_is_got_once_and_not_again_by_digest(
    hub: Hub, remote: Remote, head: dict[str, str]
) -> None:
    digest = hub.add_image("library/redis", "7", LAYER)
    hub.head_digest = False
    hub.fail("registry", status(200, head, b"x" * 10))
    descriptor = await remote.resolve(CONTEXT, REDIS, "7")
    content = await remote.manifest(CONTEXT, REDIS, descriptor.digest)
    assert str(descriptor.digest) == digest
    assert content.data == hub.manifests[digest][0]
    assert [one.method for one in hub.requests] == ["HEAD", "GET"]


async def test_a_registry_that_knows_no_head_is_asked_by_get(hub: Hub, remote: Remote) -> None:
    digest = hub.add_image("library/redis", "7")
    hub.fail("registry", status(405))
    assert str((await remote.resolve(CONTEXT, REDIS, "7")).digest) == digest


async def test_bytes_got_with_a_tag_are_kept_shortly_and_per_repository(
    hub: Hub, remote: Remote, time: HandClock
) -> None:
    hub.add_image("library/redis", "7")
    hub.head_digest = False
    digest = (await remote.resolve(CONTEXT, REDIS, "7")).digest
    await remote.manifest(CONTEXT, Repository("docker.io", "library/other"), digest)
    assert hub.count("registry", "GET") == 2
    time.now += 3600
    await remote.manifest(CONTEXT, REDIS, digest)
    assert hub.count("registry", "GET") == 3


# Manifests


async def test_a_manifest_passes_byte_for_byte(hub: Hub, remote: Remote) -> None:
    data = (
        b'{ "schemaVersion":2,\n  "config" : {"mediaType":"a/b", "digest":"sha256:%s",'
        % (b"1" * 64)
        + b'"size":3}, "layers":[] }\n'
    )
    digest = Digest.parse(hub.add_manifest("library/redis", None, data))
    content = await remote.manifest(CONTEXT, REDIS, digest)
    assert content.data == data
    assert content.descriptor.size == len(data)
    assert content.descriptor.media_type == OCI_MANIFEST


@pytest.mark.parametrize("by_tag", [False, True])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (page(), "page|text/html|other bytes|sent"),
        (sent(b"x" * (4 * MIB + 1)), "4194304"),
        (sent(b"{}", Content_Type=OCI_MANIFEST), "manifest|other bytes"),
        (sent(b"[" * 100_000, Content_Type=OCI_MANIFEST), "JSON|other bytes"),
        (sent(b"{}", Content_Encoding="br"), "no manifest|other bytes"),
        (sent(b"x", Content_Encoding="deflate"), "deflate"),
        (sent(b"\x1f\x8bnot really", Content_Encoding="gzip"), "gzip"),
        (sent(gzip.compress(b"x" * 5 * MIB), Content_Encoding="gzip"), "4 MiB"),
        (sent(gzip.compress(b"{}")[:-4], Content_Encoding="gzip"), "gzip"),
        (sent(b"{}", Docker_Content_Digest="sha256:" + "0" * 64), "other bytes"),
    ],
)
async def test_f11_f12_f14_what_is_no_such_manifest_is_refused(
    hub: Hub, remote: Remote, fault: Fault, says: str, by_tag: bool
) -> None:
    digest = Digest.parse(hub.add_image("library/redis", "7"))
    if by_tag:
        hub.fail("registry", status(200))
    hub.fail("registry", fault)
    with pytest.raises(Untrustworthy, match=says):
        await (
            remote.resolve(CONTEXT, REDIS, "7")
            if by_tag
            else remote.manifest(CONTEXT, REDIS, digest)
        )


async def test_f11_a_manifest_without_an_end_is_cut_at_the_cap(
    hub: Hub, make_remote: MakeRemote, counts: Counts
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    digest = Digest.parse(hub.add_image("library/redis", "7"))
    hub.fail("registry", endless)
    with pytest.raises(Untrustworthy, match="4194304"):
        await make_remote(hub.url).manifest(CONTEXT, REDIS, digest)
    assert counts.bytes == 4 * MIB + 1


async def test_f12_wrong_bytes_are_counted(hub: Hub, remote: Remote, counts: Counts) -> None:
    digest = Digest.parse(hub.add_image("library/redis", "7"))
    hub.fail("registry", sent(hub.manifests[str(digest)][0] + b" ", Content_Type=OCI_MANIFEST))
    with pytest.raises(Untrustworthy, match=f"other bytes than those of {digest}"):
        await remote.manifest(CONTEXT, REDIS, digest)
    assert counts.rejected == 1


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({"mediaType": OCI_INDEX, "manifests": []}, OCI_MANIFEST),
        ({"mediaType": OCI_INDEX, "manifests": [], "layers": []}, OCI_INDEX),
        ({"manifests": [], "config": {}, "layers": []}, OCI_INDEX),
    ],
)
async def test_f13_a_manifest_of_two_meanings_is_refused(
    hub: Hub, remote: Remote, document: dict[str, object], content_type: str
) -> None:
    data = json.dumps({"schemaVersion": 2, **document}).encode()
    digest = hub.add_manifest("library/redis", "7", data, content_type)
    with pytest.raises(Untrustworthy, match="hub: "):
        await remote.manifest(CONTEXT, REDIS, Digest.parse(digest))


@pytest.mark.parametrize("digest_is_told", [True, False])
@pytest.mark.parametrize("length", [30, 4 * MIB + 1])
async def test_what_whoever_may_push_can_put_under_a_tag_is_unfit_and_no_lie(
    hub: Hub, remote: Remote, counts: Counts, digest_is_told: bool, length: int
) -> None:
    hub.head_digest = digest_is_told
    old = b'{"schemaVersion":1,"fsLayers":[]}'.ljust(length)
    digest = Digest.parse(hub.add_manifest("library/redis", "old", old, SCHEMA_1))
    for ask in (remote.resolve(CONTEXT, REDIS, "old"), remote.manifest(CONTEXT, REDIS, digest)):
        with pytest.raises(Unfit):
            await ask
    assert counts.rejected == 0


async def test_f06_a_manifest_in_gzip_is_decoded_to_its_exact_digest(
    hub: Hub, remote: Remote
) -> None:
    digest = Digest.parse(hub.add_image("library/redis", "7", LAYER))
    data = hub.manifests[str(digest)][0]
    hub.fail(
        "registry", sent(gzip.compress(data), Content_Type=OCI_MANIFEST, Content_Encoding="gzip")
    )
    assert (await remote.manifest(CONTEXT, REDIS, digest)).data == data


async def test_sha512_is_proven_too(hub: Hub, remote: Remote) -> None:
    data, media_type = hub.manifests[hub.add_image("library/redis", "7")]
    digest = Digest.of(data, "sha512")
    hub.manifests[str(digest)] = data, media_type
    assert (await remote.manifest(CONTEXT, REDIS, digest)).descriptor.digest == digest
    hub.manifests[str(digest)] = data + b" ", media_type
    with pytest.raises(Untrustworthy):
        await remote.manifest(CONTEXT, REDIS, digest)


# Blobs


async def test_a_blob_comes_in_bounded_pieces_and_is_counted(
    hub: Hub, make_remote: MakeRemote, counts: Counts
) -> None:
    data = LAYER * 20
    digest = Digest.parse(hub.add_blob(data))
    stream = await make_remote(hub.url).blob(CONTEXT, REDIS, digest)
    assert (stream.start, stream.descriptor.size, stream.source) == (0, len(data), "hub")
    pieces = []
    while piece := await stream.read():
        pieces.append(piece)
    assert await stream.read() == b""
    await stream.close()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= MIB
    assert counts.bytes >= len(data)


async def test_f67_who_is_not_the_registry_vouches_for_nothing(
    hub: Hub, make_remote: MakeRemote
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    with pytest.raises(Denied):
        await make_remote(hub.url, trust=Trust.CONTENT).blob(CONTEXT, REDIS, digest, vouched=True)
    stream = await make_remote(hub.url, trust=Trust.TAGS).blob(CONTEXT, REDIS, digest, vouched=True)
    assert stream.vouched
    await stream.close()


async def test_a_range_is_streamed_from_its_start(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    for asked_for, expected in (
        (ByteRange(1000), LAYER[1000:]),
        (ByteRange(1000, 2000), LAYER[1000:2000]),
        (ByteRange(0, 10**9), LAYER),
    ):
        stream = await remote.blob(CONTEXT, REDIS, digest, asked_for)
        assert (stream.start, stream.descriptor.size) == (asked_for.start, len(LAYER))
        assert await read(stream) == expected


async def test_f07_a_range_that_is_ignored_starts_at_zero(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", sent(LAYER))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(1000))
    assert (stream.start, stream.descriptor.size) == (0, len(LAYER))
    assert await read(stream) == LAYER


@pytest.mark.parametrize(
    ("content_range", "start", "stop"),
    [
        (None, 1000, 256000),
        ("bytes 0-255999/256000", 0, 256000),
        ("bytes 1001-255999/256000", 1001, 256000),
        ("bytes 1000-1999/256000", 1000, 2000),
        ("bytes 1000-255999/255000", 1000, 256000),
        ("pieces 1000-255999/256000", 1000, 256000),
        ("bytes */256000", 1000, 256000),
    ],
)
async def test_f07_a_range_answered_with_nonsense_is_not_spliced_but_asked_whole(
    hub: Hub, remote: Remote, content_range: str | None, start: int, stop: int
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    headers = {} if content_range is None else {"Content-Range": content_range}
    hub.fail("blobs", status(206, headers, LAYER[start:stop]))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(1000))
    assert stream.start == 0
    assert await read(stream) == LAYER
    assert "Range" not in hub.seen("blobs")[-1].headers


async def test_f07_a_206_of_another_length_is_not_spliced(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", status(206, {"Content-Range": "bytes 1000-255999/256000"}, LAYER))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(1000))
    assert stream.start == 0
    await stream.close()


async def test_a_part_whose_total_is_unknown_is_taken(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", status(206, {"Content-Range": "bytes 1000-1999/*"}, LAYER[1000:2000]))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(1000, 2000))
    assert (stream.start, stream.descriptor.size) == (1000, None)
    assert await read(stream) == LAYER[1000:2000]


async def test_f07_a_range_behind_the_end_tells_the_size(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    with pytest.raises(RangeInvalid) as caught:
        await remote.blob(CONTEXT, REDIS, digest, ByteRange(len(LAYER)))
    assert caught.value.size == len(LAYER)


@pytest.mark.parametrize("content_range", [None, "bytes */256000", "bytes */many"])
async def test_f07_a_416_to_a_range_that_exists_is_asked_whole(
    hub: Hub, remote: Remote, content_range: str | None
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    headers = {} if content_range is None else {"Content-Range": content_range}
    hub.fail("blobs", status(416, headers))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(1000))
    assert stream.start == 0
    await stream.close()


async def test_a_206_that_nobody_asked_for_is_refused(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", status(206, {"Content-Range": "bytes 0-9/256000"}, LAYER[:10]), times=9)
    with pytest.raises(Untrustworthy, match="206"):
        await remote.blob(CONTEXT, REDIS, digest)


async def test_f02_a_body_that_is_cut_short_is_no_end(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", cut(LAYER[:1000], announced=len(LAYER)))
    stream = await remote.blob(CONTEXT, REDIS, digest)
    with pytest.raises(Unavailable, match="cut"):
        await read(stream)


async def test_f05_a_body_without_length_has_no_size(hub: Hub, remote: Remote) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(LAYER)
        return response

    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", chunked)
    stream = await remote.blob(CONTEXT, REDIS, digest)
    assert stream.descriptor.size is None
    assert await read(stream) == LAYER


async def test_f06_an_encoded_blob_is_refused(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    for asked_for in (None, ByteRange(10)):
        hub.fail("blobs", sent(gzip.compress(LAYER), Content_Encoding="gzip"), times=2)
        with pytest.raises(Untrustworthy, match="Content-Encoding"):
            await read(await remote.blob(CONTEXT, REDIS, digest, asked_for))
        hub._faults.clear()


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "br", "utf-8", "aws-chunked"])
async def test_a_blob_with_a_label_that_clients_do_not_heed_comes_as_it_is(
    hub: Hub, remote: Remote, label: str
) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("etc/hosts"))
    digest = Digest.parse(hub.add_blob(layer.getvalue()))
    hub.fail("blobs", sent(layer.getvalue(), Content_Encoding=label))
    assert await read(await remote.blob(CONTEXT, REDIS, digest)) == layer.getvalue()


async def test_f14_a_page_instead_of_a_blob_is_refused(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("registry", page())
    with pytest.raises(Untrustworthy, match="web page"):
        await read(await remote.blob(CONTEXT, REDIS, digest))


async def test_f09_an_expired_url_is_asked_for_again_at_the_registry(
    hub: Hub, remote: Remote
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", status(403))
    assert await read(await remote.blob(CONTEXT, REDIS, digest)) == LAYER
    assert hub.count("registry") == 2
    first, second = hub.seen("blobs")
    assert first.query["signature"] != second.query["signature"]


async def test_f09_a_cdn_that_refuses_for_ever_is_unavailable_not_denied(
    hub: Hub, remote: Remote
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("blobs", status(403), times=99)
    with pytest.raises(Unavailable, match="refuses the URL"):
        await remote.blob(CONTEXT, REDIS, digest)
    assert hub.count("registry") == 3


async def test_f61_a_challenge_from_where_the_registry_sent_us_is_not_answered(
    hub: Hub, remote: Remote
) -> None:
    challenge = f'Bearer realm="{hub.realm_url}",service="hub"'
    hub.fail("blobs", status(401, {"WWW-Authenticate": challenge}), times=9)
    with pytest.raises(Unavailable, match="refuses the URL"):
        await remote.blob(CONTEXT, REDIS, Digest.parse(hub.add_blob(LAYER)))
    assert hub.count("realm") == 0


async def test_rejected_streams_are_counted(hub: Hub, remote: Remote, counts: Counts) -> None:
    stream = await remote.blob(CONTEXT, REDIS, Digest.parse(hub.add_blob(LAYER)))
    stream.reject("wrong digest")
    await stream.close()
    assert counts.rejected == 1


# stat


async def test_a_blobs_size_is_asked_by_head(hub: Hub, remote: Remote) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    descriptor = await remote.stat(CONTEXT, REDIS, digest)
    assert (descriptor.digest, descriptor.size) == (digest, len(LAYER))
    assert {one.method for one in hub.requests} == {"HEAD"}


@pytest.mark.parametrize("code", [400, 403, 405, 501])
async def test_a_blob_host_that_refuses_head_is_asked_for_one_byte(
    hub: Hub, remote: Remote, code: int
) -> None:
    for data in (LAYER, b""):
        digest = Digest.parse(hub.add_blob(data))
        hub.fail("blobs", status(code))
        assert (await remote.stat(CONTEXT, REDIS, digest)).size == len(data)
        assert hub.requests[-1].headers["Range"] == "bytes=0-0"


async def test_a_missing_blob_is_unknown_to_head_too(hub: Hub, remote: Remote) -> None:
    with pytest.raises(BlobUnknown):
        await remote.stat(CONTEXT, REDIS, Digest.of(b"nothing"))


# Tags and referrers


async def test_tags_are_paged_by_link(hub: Hub, remote: Remote) -> None:
    for tag in ("5", "6", "7"):
        hub.add_image("library/redis", tag)
    page_one = await remote.tags(CONTEXT, REDIS, 2)
    assert (page_one.tags, page_one.last) == (("5", "6"), "6")
    page_two = await remote.tags(CONTEXT, REDIS, 2, page_one.last)
    assert (page_two.tags, page_two.last) == (("7",), None)


async def test_a_repository_without_tags_and_tags_that_are_none(hub: Hub, remote: Remote) -> None:
    hub.fail("registry", sent(b'{"name": "library/redis", "tags": null}'))
    assert (await remote.tags(CONTEXT, REDIS)).tags == ()
    hub.fail("registry", sent(b'{"tags": ["7", "-x", "a b", 7, "../x", "a\\r\\nb"]}'))
    assert (await remote.tags(CONTEXT, REDIS)).tags == ("7",)


@pytest.mark.parametrize("body", [b"<html>", b'{"tags": {"7": 1}}', b"[]", b'{"tags": "7"}'])
async def test_a_tag_list_that_is_none_is_refused(hub: Hub, remote: Remote, body: bytes) -> None:
    hub.fail("registry", sent(body))
    with pytest.raises(Untrustworthy, match="hub: "):
        await remote.tags(CONTEXT, REDIS)


@pytest.mark.parametrize(
    ("link", "last"),
    [
        ('</v2/x/tags/list?n=1&last=7>; rel="next"', "7"),
        ("<https://evil.example/?last=6>; rel=next", "6"),
        ('</x>; rel="next"', "7"),
        ('</x?last=7>; rel="prev"', None),
        ("nonsense", None),
        ('</x?last=a%0d%0ab>; rel="next"', "7"),
        ('</x?n=5>; rel="next"', "7"),
        ('<//[>; rel="next"', "7"),
        ('</x?last=6&ns=ghcr.io>; rel="next"', "7"),
        ('</x?token=a&%6es=ghcr.io>; rel="next"', "7"),
    ],
)
async def test_f69_of_a_link_only_the_marker_is_taken(
    hub: Hub, remote: Remote, link: str, last: str | None
) -> None:
    hub.fail("registry", sent(b'{"tags": ["7"]}', Link=link))
    assert (await remote.tags(CONTEXT, REDIS)).last == last


async def test_referrers_come_from_the_api(hub: Hub, remote: Remote) -> None:
    index = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()
    hub.fail("registry", sent(index, Content_Type=OCI_INDEX))
    assert await remote.referrers(CONTEXT, REDIS, Digest.of(b"x")) == index


def _referrers(*types: str) -> bytes:
    entries = [
        {
            "mediaType": "x/y",
            "digest": str(Digest.of(kind.encode())),
            "size": 1,
            "artifactType": kind,
        }
        for kind in types
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


async def test_referrers_are_those_of_all_pages(hub: Hub, remote: Remote) -> None:
    first, second = _referrers("a/sbom", "a/signature"), _referrers("a/sbom")
    link = '</v2/elsewhere/referrers/x?last=2&n=2>; rel="next"'
    subject = Digest.of(b"x")
    hub.fail("registry", sent(first, Content_Type=OCI_INDEX, Link=link))
    hub.fail("registry", sent(second, Content_Type=OCI_INDEX))
    data = await remote.referrers(CONTEXT, REDIS, subject)
    found = [entry["artifactType"] for entry in json.loads(data)["manifests"]]
    assert found == ["a/sbom", "a/signature", "a/sbom"]
    assert hub.requests[1].path == f"/v2/library/redis/referrers/{subject}"
    assert dict(hub.requests[1].query) == {"last": "2", "n": "2"}


async def test_referrers_in_many_small_pages_are_all_there(hub: Hub, remote: Remote) -> None:
    """Where each page's link has words that only the registry understands."""
    for number in range(120):
        link = f'<https://internal.example/v2/x?next_page=g{number}%3D%3D&n=1>; rel="next"'
        page = _referrers(f"a/kind{number}")
        hub.fail("registry", sent(page, Content_Type=OCI_INDEX, Link=link))
    hub.fail("registry", sent(_referrers("a/last"), Content_Type=OCI_INDEX))
    data = await remote.referrers(CONTEXT, REDIS, Digest.of(b"x"))
    assert len(json.loads(data)["manifests"]) == 121
    assert dict(hub.requests[1].query) == {"next_page": "g0==", "n": "1"}


async def test_a_page_of_referrers_that_leads_back_is_the_last(hub: Hub, remote: Remote) -> None:
    for number in (1, 2, 1):
        link = f'</v2/x?page={number}>; rel="next"'
        hub.fail("registry", sent(_referrers("a/sbom"), Content_Type=OCI_INDEX, Link=link))
    data = await remote.referrers(CONTEXT, REDIS, Digest.of(b"x"))
    assert len(json.loads(data)["manifests"]) == 3
    assert hub.count("registry", path="/referrers/") == 3


async def test_pages_without_end_are_refused(hub: Hub, remote: Remote) -> None:
    for number in range(600):
        link = f'</v2/x?last={number}>; rel="next"'
        hub.fail("registry", sent(_referrers("a/sbom"), Content_Type=OCI_INDEX, Link=link))
    with pytest.raises(Untrustworthy, match="more referrers than are taken"):
        await remote.referrers(CONTEXT, REDIS, Digest.of(b"x"))


async def test_referrers_come_from_the_fallback_tag_or_are_none(hub: Hub, remote: Remote) -> None:
    subject = Digest.of(b"x")
    with pytest.raises(Unknown):
        await remote.referrers(CONTEXT, REDIS, subject)
    index = b'{"schemaVersion":2,"mediaType":"%s", "manifests":[]}' % OCI_INDEX.encode()
    hub.add_manifest("library/redis", f"sha256-{subject.hex}", index, OCI_INDEX)
    assert await remote.referrers(CONTEXT, REDIS, subject) == index


@pytest.mark.parametrize(
    "odd",
    [
        (b'{"schemaVersion":2,"config":{},"layers":[]}', OCI_MANIFEST),
        (manifest_of(b"{}"), OCI_MANIFEST),
        (b'{"schemaVersion":1,"fsLayers":[]}', SCHEMA_1),
        (b"x" * (4 * MIB + 1), OCI_INDEX),
    ],
)
@pytest.mark.parametrize("api", [404, 405])
async def test_a_fallback_tag_that_is_no_index_has_no_referrers(
    hub: Hub, remote: Remote, counts: Counts, odd: tuple[bytes, str], api: int
) -> None:
    subject = Digest.of(b"x")
    hub.add_manifest("library/redis", f"sha256-{subject.hex}", *odd)
    hub.fail("registry", status(api))
    with pytest.raises(Unknown):
        await remote.referrers(CONTEXT, REDIS, subject)
    assert counts.rejected == 0


# What the registry's refusals mean


async def test_404_is_told_by_the_error_document(hub: Hub, remote: Remote) -> None:
    digest = Digest.of(b"nothing")
    with pytest.raises(ManifestUnknown):
        await remote.manifest(CONTEXT, REDIS, digest)
    with pytest.raises(BlobUnknown):
        await remote.blob(CONTEXT, REDIS, digest)
    with pytest.raises(NameUnknown):
        await remote.tags(CONTEXT, REDIS)
    hub.fail("registry", status(404, body='{"errors": [{"code": "NAME_UNKNOWN"}]}'))
    with pytest.raises(NameUnknown):
        await remote.manifest(CONTEXT, REDIS, digest)


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "[]", '{"errors": 7}', '{"errors": [7, {"code": {}}]}', "[" * 9999, "x" * 99999],
)
async def test_404_with_any_body_is_unknown(hub: Hub, remote: Remote, body: str) -> None:
    hub.fail("registry", status(404, body=body))
    with pytest.raises(ManifestUnknown):
        await remote.manifest(CONTEXT, REDIS, Digest.of(b"x"))


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refusal_says_both_that_it_may_mean(hub: Hub, remote: Remote, code: int) -> None:
    hub.fail("registry", status(code), times=9)
    with pytest.raises(Denied, match=r"library/redis.*does not exist there, or it is private"):
        await remote.resolve(CONTEXT, REDIS, "7")
    asked = hub.seen("registry", path="/library/")
    assert [one.method for one in asked] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({}, 1),
        ({"Retry-After": "nonsense"}, 1),
        (
            {
                # Both an hour ago by this host's clock, which may be wrong.
                "Date": formatdate(1_600_000_000, usegmt=True),
                "Retry-After": formatdate(1_600_000_090, usegmt=True),
            },
            90,
        ),
        ({"Date": "?", "Retry-After": formatdate(1_700_000_030, usegmt=True)}, 30),
    ],
)
async def test_f20_a_rate_limit_says_when_to_come_back(
    hub: Hub, remote: Remote, headers: dict[str, str], seconds: float
) -> None:
    hub.fail("registry", status(429, headers), times=9)
    with pytest.raises(RateLimited) as caught:
        await remote.resolve(CONTEXT, REDIS, "7")
    assert caught.value.retry_after == seconds
    assert hub.count("registry") == 1


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_f21_trouble_that_passes_is_not_noticed(hub: Hub, remote: Remote, code: int) -> None:
    hub.add_image("library/redis", "7")
    hub.fail("registry", status(code), times=2)
    await remote.resolve(CONTEXT, REDIS, "7")


async def test_f21_trouble_that_stays_is_named(hub: Hub, remote: Remote, counts: Counts) -> None:
    hub.fail("registry", status(502), times=99)
    with pytest.raises(Unavailable, match=r"hub has trouble \(502\)"):
        await remote.resolve(CONTEXT, REDIS, "7")
    assert counts.requests == [("hub", "HEAD", "502")] * 3 + [("hub", "GET", "502")]


async def test_f28_connections_closed_between_requests_are_not_noticed(
    hub: Hub, make_remote: MakeRemote
) -> None:
    hub.add_image("library/redis", "7")
    remote = make_remote(hub.url, policy=RetryPolicy(tries=2))
    for _ in range(5):
        await remote.resolve(CONTEXT, REDIS, "7")
        hub.fail("registry", cut())


@pytest.mark.parametrize("code", [400, 405, 409, 414, 418, 422, 451])
async def test_another_4xx_is_a_word_about_the_request(hub: Hub, remote: Remote, code: int) -> None:
    hub.fail("registry", status(code), times=9)
    with pytest.raises(Refused, match=rf"hub does not take this request \({code}\)"):
        await remote.tags(CONTEXT, REDIS)
    assert hub.count("registry") == 1


@pytest.mark.parametrize("code", [408, 425])
async def test_a_4xx_that_means_later_is_asked_again(hub: Hub, remote: Remote, code: int) -> None:
    hub.add_image("library/redis", "7")
    hub.fail("registry", status(code))
    await remote.resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize("code", [400, 405, 416])
async def test_a_blob_whose_ranges_are_refused_comes_whole(
    hub: Hub, remote: Remote, code: int
) -> None:
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.fail("registry", status(code, {"Content-Range": f"bytes */{len(LAYER)}"}))
    stream = await remote.blob(CONTEXT, REDIS, digest, ByteRange(100))
    assert stream.start == 0
    assert await read(stream) == LAYER


@pytest.mark.parametrize("code", [204, 304])
async def test_another_status_is_no_answer(hub: Hub, remote: Remote, code: int) -> None:
    hub.fail("registry", status(code))
    with pytest.raises(Unavailable, match=str(code)):
        await remote.manifest(CONTEXT, REDIS, Digest.of(b"x"))


async def test_f26_a_token_that_ends_between_manifest_and_blob_is_not_noticed(
    hub: Hub, remote: Remote
) -> None:
    hub.challenge = "bearer"
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.add_image("library/redis", "7", LAYER)
    await remote.resolve(CONTEXT, REDIS, "7")
    hub.revoke_tokens()
    assert await read(await remote.blob(CONTEXT, REDIS, digest)) == LAYER
    assert hub.count("realm") == 2


async def test_no_connection_is_left_open(hub: Hub, make_remote: MakeRemote) -> None:
    """Whatever comes of it, each request gives its connection back: two must be enough."""
    remote = make_remote(hub.url, limits=replace(QUICK, connections=2))
    digest = Digest.parse(hub.add_blob(LAYER))
    hub.add_image("library/redis", "7")
    faults = (status(404, body="x" * 9), status(503, body="x"), page(), status(416), status(206))
    for fault in faults:
        for server in ("registry", "blobs"):
            for asked_for in (None, ByteRange(5)):
                hub.fail(server, fault, times=2)
                try:
                    stream: BlobStream = await remote.blob(CONTEXT, REDIS, digest, asked_for)
                    await stream.close()
                except RegistryError:
                    pass
                hub._faults.clear()
    for _ in range(3):
        await asyncio.gather(
            remote.stat(CONTEXT, REDIS, digest), remote.resolve(CONTEXT, REDIS, "7")
        )
