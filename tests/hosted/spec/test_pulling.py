"""Section "Pull"."""

from __future__ import annotations

import pytest

from .registry import IMAGE, Registry, Repository, digest_of

BLOB = bytes(range(256)) * 8


def test_determining_support(registry: Registry) -> None:
    assert registry.ask("GET", "/v2/").status == 200
    refused = Registry(registry.address, "").ask("GET", "/v2/")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert refused.headers["WWW-Authenticate"]
    wrong = Registry(registry.address, "ann:wrong password").ask("GET", "/v2/")
    assert (wrong.status, wrong.code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_pulling_manifests(repository: Repository, by: str) -> None:
    manifest = repository.put_image("1")
    digest = digest_of(manifest)
    reference = "1" if by == "tag" else digest
    for method, body in (("GET", manifest), ("HEAD", b"")):
        answer = repository.ask(method, f"manifests/{reference}", headers={"Accept": IMAGE})
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Content-Type"] == IMAGE
        assert answer.headers["Content-Length"] == str(len(manifest))
        assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("reference", ["none", digest_of(b"none")])
def test_pulling_manifests_that_are_not_there(repository: Repository, reference: str) -> None:
    repository.push(b"the repository is there")
    answer = repository.ask("GET", f"manifests/{reference}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert repository.ask("HEAD", f"manifests/{reference}").status == 404


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_pulling_blobs(repository: Repository, algorithm: str) -> None:
    digest = repository.push(BLOB, algorithm)
    for method, body in (("GET", BLOB), ("HEAD", b"")):
        answer = repository.ask(method, f"blobs/{digest}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Content-Length"] == str(len(BLOB))
        assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)],
)
def test_pulling_blobs_in_ranges(repository: Repository, asked: str, first: int, last: int) -> None:
    digest = repository.push(BLOB)
    answer = repository.ask("GET", f"blobs/{digest}", headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, BLOB[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(BLOB)}"


def test_pulling_blobs_in_ranges_that_are_not_there(repository: Repository) -> None:
    digest = repository.push(BLOB)
    answer = repository.ask("GET", f"blobs/{digest}", headers={"Range": "bytes=5000-10000"})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(BLOB)}"


@pytest.mark.parametrize("asked", ["bytes=500-0", "lines=1-2"])
def test_pulling_blobs_in_what_is_no_range(repository: Repository, asked: str) -> None:
    """RFC 9110, 14.2: it is as if it were not there, or 416."""
    digest = repository.push(BLOB)
    answer = repository.ask("GET", f"blobs/{digest}", headers={"Range": asked})
    assert answer.status == 416 or (answer.status, answer.body) == (200, BLOB)


def test_checking_if_content_exists_in_the_registry(repository: Repository) -> None:
    repository.push(b"the repository is there")
    unknown = digest_of(b"unknown")
    assert repository.ask("HEAD", f"blobs/{unknown}").status == 404
    answer = repository.ask("GET", f"blobs/{unknown}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_a_digest_that_is_none_is_a_bad_request(repository: Repository) -> None:
    for path in ("blobs/sha256:short", "manifests/sha256:short", "referrers/sha256:short"):
        answer = repository.ask("GET", path)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID"), path


def test_an_empty_blob(repository: Repository) -> None:
    digest = repository.push(b"")
    answer = repository.ask("GET", f"blobs/{digest}")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert repository.ask("HEAD", f"blobs/{digest}").headers["Content-Length"] == "0"


def test_a_name_that_is_none(registry: Registry) -> None:
    for name in ("team/UPPER", "team/-a", "team/a..b", "team//a"):
        answer = registry.ask("GET", f"/v2/{name}/tags/list")
        assert (answer.status, answer.code) == (400, "NAME_INVALID"), name
