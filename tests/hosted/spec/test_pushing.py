"""Section "Push"."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .registry import (
    CONFIG,
    EMPTY,
    IMAGE,
    INDEX,
    LAYER,
    SCHEMA2,
    Repository,
    descriptor,
    digest_of,
    image,
    index,
)

BLOB = bytes(range(256)) * 12 + b"!"
CHUNK = 1024
OCTETS = {"Content-Type": "application/octet-stream"}


def held(repository: Repository, digest: str) -> bytes | None:
    answer = repository.ask("GET", f"blobs/{digest}")
    return answer.body if answer.status == 200 else None


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_pushing_a_blob_monolithically_by_post_then_put(
    repository: Repository, algorithm: str
) -> None:
    digest = digest_of(BLOB, algorithm)
    session = repository.begin()
    answer = repository.registry.ask("PUT", f"{session}?digest={digest}", BLOB, OCTETS)
    assert answer.status == 201
    assert repository.location(answer) == f"/v2/{repository.name}/blobs/{digest}"
    assert answer.headers["Docker-Content-Digest"] == digest
    assert held(repository, digest) == BLOB


def test_pushing_a_blob_by_a_single_post(repository: Repository) -> None:
    digest = digest_of(BLOB)
    answer = repository.ask("POST", f"blobs/uploads/?digest={digest}", BLOB, OCTETS)
    assert answer.status == 201
    assert repository.registry.ask("GET", repository.location(answer)).body == BLOB


def test_pushing_a_blob_as_a_stream(repository: Repository) -> None:
    """One PATCH without a length or a range, as clients send it; then a PUT without a body."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(BLOB), CHUNK):
            yield BLOB[start : start + CHUNK]

    session = repository.begin()
    chunked = {"Transfer-Encoding": "chunked"}
    answer = repository.registry.ask("PATCH", session, pieces(), chunked)
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(BLOB) - 1}")
    digest = digest_of(BLOB)
    end = f"{repository.location(answer)}?digest={digest}"
    assert repository.registry.ask("PUT", end).status == 201
    assert held(repository, digest) == BLOB


@pytest.mark.parametrize("last", ["PATCH", "PUT"])
def test_pushing_a_blob_in_chunks(repository: Repository, last: str) -> None:
    """The last chunk may come with the PUT."""
    registry, digest = repository.registry, digest_of(BLOB)
    location = repository.begin()
    starts = list(range(0, len(BLOB), CHUNK))
    for start in starts[:-1] if last == "PUT" else starts:
        chunk = BLOB[start : start + CHUNK]
        end = start + len(chunk) - 1
        answer = registry.ask(
            "PATCH", location, chunk, {**OCTETS, "Content-Range": f"{start}-{end}"}
        )
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{end}")
        location = repository.location(answer)
    left = BLOB[starts[-1] :] if last == "PUT" else None
    more = {"Content-Range": f"{starts[-1]}-{len(BLOB) - 1}"} if left else {}
    answer = registry.ask("PUT", f"{location}?digest={digest}", left, more)
    assert answer.status == 201
    assert held(repository, digest) == BLOB


@pytest.mark.parametrize("start", [CHUNK + 1, CHUNK - 1, 0, 2 * CHUNK])
def test_pushing_a_blob_in_chunks_out_of_order(repository: Repository, start: int) -> None:
    registry = repository.registry
    location = repository.begin()
    first = {"Content-Range": f"0-{CHUNK - 1}"}
    location = repository.location(registry.ask("PATCH", location, BLOB[:CHUNK], first))
    wrong = {"Content-Range": f"{start}-{start + CHUNK - 1}"}
    refused = registry.ask("PATCH", location, BLOB[start : start + CHUNK], wrong)
    assert refused.status == 416
    state = registry.ask("GET", repository.location(refused))
    assert (state.status, state.headers["Range"]) == (204, f"0-{CHUNK - 1}")
    rest = {"Content-Range": f"{CHUNK}-{len(BLOB) - 1}"}
    end = f"{repository.location(state)}?digest={digest_of(BLOB)}"
    assert registry.ask("PUT", end, BLOB[CHUNK:], rest).status == 201
    assert held(repository, digest_of(BLOB)) == BLOB


def test_a_first_chunk_out_of_order(repository: Repository) -> None:
    location = repository.begin()
    wrong = {"Content-Range": f"{CHUNK}-{2 * CHUNK - 1}"}
    refused = repository.registry.ask("PATCH", location, BLOB[:CHUNK], wrong)
    assert refused.status == 416
    state = repository.registry.ask("GET", location)
    assert (state.status, state.headers["Range"].startswith("0-")) == (204, True)


def test_an_upload_is_cancelled(repository: Repository) -> None:
    location = repository.begin()
    assert repository.registry.ask("DELETE", location).status == 204
    answer = repository.registry.ask("GET", location)
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("way", ["post", "post and put", "stream"])
def test_bytes_that_are_not_what_their_digest_says(repository: Repository, way: str) -> None:
    digest, other = digest_of(BLOB), BLOB + b"oh no"
    location = repository.begin()
    if way == "post":
        answer = repository.ask("POST", f"blobs/uploads/?digest={digest}", other)
    elif way == "post and put":
        answer = repository.registry.ask("PUT", f"{location}?digest={digest}", other)
    else:
        repository.registry.ask("PATCH", location, other)
        answer = repository.registry.ask("PUT", f"{location}?digest={digest}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert held(repository, digest) is None
    assert held(repository, digest_of(other)) is None


def test_mounting_a_blob_from_another_repository(repository: Repository) -> None:
    source = repository.registry.new_repository()
    digest = source.push(BLOB)
    answer = repository.ask("POST", f"blobs/uploads/?mount={digest}&from={source.name}")
    assert answer.status == 201
    assert repository.location(answer) == f"/v2/{repository.name}/blobs/{digest}"
    assert held(repository, digest) == BLOB
    assert repository.ask("DELETE", f"blobs/{digest}").status == 202
    assert held(source, digest) == BLOB


def test_mounting_a_blob_from_a_repository_that_is_not_named(repository: Repository) -> None:
    digest = repository.registry.new_repository().push(b"somewhere " + repository.name.encode())
    answer = repository.ask("POST", f"blobs/uploads/?mount={digest}")
    assert answer.status == 201
    assert held(repository, digest) is not None


@pytest.mark.parametrize("where", ["from=team/none&", ""])
def test_mounting_a_blob_that_is_nowhere(repository: Repository, where: str) -> None:
    """The client has a session to send it to."""
    data = repository.name.encode()
    answer = repository.ask("POST", f"blobs/uploads/?{where}mount={digest_of(data)}")
    assert answer.status == 202
    end = f"{repository.location(answer)}?digest={digest_of(data)}"
    assert repository.registry.ask("PUT", end, data).status == 201


def test_pushing_manifests(repository: Repository) -> None:
    for data in (b"{}", b"layer"):
        repository.push(data)
    manifest = image()
    digest = digest_of(manifest)
    for reference in ("1", digest):
        answer = repository.put(manifest, reference)
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
        found = repository.registry.ask("GET", repository.location(answer))
        assert (found.body, found.headers["Content-Type"]) == (manifest, IMAGE)
        assert "OCI-Subject" not in answer.headers


def test_pushing_manifests_by_sha512(repository: Repository) -> None:
    for data in (b"{}", b"layer"):
        repository.push(data)
    manifest = image()
    digest = digest_of(manifest, "sha512")
    assert repository.put(manifest, digest).headers["Docker-Content-Digest"] == digest
    answer = repository.ask("GET", f"manifests/{digest}")
    assert (answer.status, answer.body) == (200, manifest)
    assert repository.ask("DELETE", f"manifests/{digest}").status == 202


def test_pushing_manifests_in_blobs_of_sha512(repository: Repository) -> None:
    data = b"a layer by sha512"
    repository.push(b"{}")
    layer = {"mediaType": LAYER, "digest": repository.push(data, "sha512"), "size": len(data)}
    assert repository.put(image((), layers=[layer]), "1").status == 201


def test_pushing_manifests_with_subject(repository: Repository) -> None:
    subject = repository.put_image("1")
    manifest = image(subject=descriptor(subject, IMAGE))
    answer = repository.put(manifest)
    assert (answer.status, answer.headers["OCI-Subject"]) == (201, digest_of(subject))


def test_pushing_manifests_with_a_subject_that_is_not_there(repository: Repository) -> None:
    repository.put_image("1")
    missing = descriptor(b"missing", IMAGE)
    answer = repository.put(image(subject=missing))
    assert (answer.status, answer.headers["OCI-Subject"]) == (201, missing["digest"])


def test_pushing_an_index_and_one_of_indexes(repository: Repository) -> None:
    one, two = repository.put_image(layers=(b"one",)), repository.put_image(layers=(b"two",))
    inner = index([one, two])
    assert repository.put(inner, "", INDEX).status == 201
    outer = index([inner])
    assert repository.put(outer, "all", INDEX).status == 201
    answer = repository.ask("GET", "manifests/all")
    assert (answer.body, answer.headers["Content-Type"]) == (outer, INDEX)
    assert repository.put(index([]), "none", INDEX).status == 201


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"artifactType": "application/x", "layers": []}, id="artifact"),
        pytest.param({"layers": []}, id="no layers"),
        pytest.param({"org.example.custom": {"deep": [1, None]}}, id="fields of one's own"),
        pytest.param({"annotations": {"a": "b", "c": ""}}, id="annotations"),
        pytest.param(
            {"layers": [{**descriptor(b"layer", LAYER), "data": "bGF5ZXI="}]}, id="data field"
        ),
        pytest.param(
            {
                "layers": [
                    descriptor(
                        b"elsewhere",
                        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                        urls=["https://elsewhere.example.com/x"],
                    )
                ]
            },
            id="non-distributable layer",
        ),
    ],
)
def test_what_manifests_may_have(repository: Repository, more: dict[str, object]) -> None:
    for data in (b"{}", b"layer"):
        repository.push(data)
    manifest = image(**more)
    assert repository.put(manifest, "1").status == 201
    assert repository.ask("GET", "manifests/1").body == manifest


def test_an_artifact_with_an_empty_config(repository: Repository) -> None:
    repository.push(b"{}")
    empty = descriptor(b"{}", EMPTY)
    manifest = image(config=empty, layers=[empty], artifactType="application/x")
    assert repository.put(manifest, "1").status == 201


def test_a_manifest_of_nearly_four_mebibytes(repository: Repository) -> None:
    """A registry takes so much at least; more is 413 Payload Too Large."""
    notes = {f"note-{number}": "A" * 10_000 for number in range(390)}
    manifest = repository.put_image("large", annotations=notes)
    assert repository.ask("GET", "manifests/large").body == manifest
    more = image(annotations={"a": "A" * (4 << 20)})
    assert repository.put(more, "larger").status == 413


def test_schema_2_of_docker(repository: Repository) -> None:
    repository.push(b"{}")
    docker = "application/vnd.docker."
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": SCHEMA2,
            "config": descriptor(b"{}", f"{docker}container.image.v1+json"),
            "layers": [],
        }
    ).encode()
    assert repository.put(manifest, "1", SCHEMA2).status == 201
    assert repository.ask("HEAD", "manifests/1").headers["Content-Type"] == SCHEMA2


def test_a_manifest_whose_blobs_are_not_there(repository: Repository) -> None:
    repository.push(b"{}")
    answer = repository.put(image((repository.name.encode(),)), "1")
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert repository.ask("HEAD", "manifests/1").status == 404


@pytest.mark.parametrize(
    ("reference", "manifest", "media_type", "code"),
    [
        pytest.param("sha256:baddigeststring", image(), IMAGE, "DIGEST_INVALID", id="no digest"),
        pytest.param(digest_of(b"another"), image(), IMAGE, "DIGEST_INVALID", id="another digest"),
        pytest.param("-1", image(), IMAGE, "TAG_INVALID", id="no tag"),
        pytest.param("1", b"", IMAGE, "MANIFEST_INVALID", id="empty"),
        pytest.param("1", b"no json", IMAGE, "MANIFEST_INVALID", id="no JSON"),
        pytest.param("1", b"[]", IMAGE, "MANIFEST_INVALID", id="no object"),
        pytest.param("1", b"\xff\xfe", IMAGE, "MANIFEST_INVALID", id="no text"),
        pytest.param("1", b"[" * 100_000, IMAGE, "MANIFEST_INVALID", id="deep"),
        pytest.param("1", image(), INDEX, "MANIFEST_INVALID", id="another type"),
        pytest.param("1", image(), "application/x-tar", "MANIFEST_INVALID", id="no type"),
        pytest.param("1", image(config=5), IMAGE, "MANIFEST_INVALID", id="no config"),
        pytest.param(
            "1",
            image(config=descriptor(b"{}", CONFIG, size=-1)),
            IMAGE,
            "MANIFEST_INVALID",
            id="a size below 0",
        ),
    ],
)
def test_a_manifest_that_is_none(
    repository: Repository, reference: str, manifest: bytes, media_type: str, code: str
) -> None:
    for data in (b"{}", b"layer"):
        repository.push(data)
    answer = repository.put(manifest, reference, media_type)
    assert (answer.status, answer.code) == (400, code)
