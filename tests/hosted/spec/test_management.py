"""Section "Content Management"."""

from __future__ import annotations

import pytest

from .registry import IMAGE, INDEX, Repository, descriptor, digest_of, index


def test_deleting_tags(repository: Repository) -> None:
    """The manifest stays, and other tags of it."""
    manifest = repository.put_image("1")
    repository.put(manifest, "2")
    assert repository.ask("DELETE", "manifests/1").status == 202
    answer = repository.ask("GET", "manifests/1")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert repository.ask("GET", "manifests/2").status == 200
    assert repository.ask("GET", f"manifests/{digest_of(manifest)}").status == 200
    assert repository.ask("GET", "tags/list").json["tags"] == ["2"]


def test_deleting_manifests(repository: Repository) -> None:
    """With all tags that point there."""
    manifest = repository.put_image("1")
    repository.put(manifest, "2")
    digest = digest_of(manifest)
    assert repository.ask("DELETE", f"manifests/{digest}").status == 202
    for reference in (digest, "1", "2"):
        answer = repository.ask("GET", f"manifests/{reference}")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert repository.ask("GET", "tags/list").json["tags"] == []


def test_deleting_a_referrer(repository: Repository) -> None:
    subject = repository.put_image("1")
    referrer = repository.put_image(layers=(b"r",), subject=descriptor(subject, IMAGE))
    assert repository.ask("DELETE", f"manifests/{digest_of(referrer)}").status == 202
    assert repository.ask("GET", f"referrers/{digest_of(subject)}").json["manifests"] == []


def test_deleting_an_index_and_then_what_it_had(repository: Repository) -> None:
    one = repository.put_image()
    listed = index([one])
    repository.put(listed, "all", INDEX)
    for each in (listed, one):
        assert repository.ask("DELETE", f"manifests/{digest_of(each)}").status == 202
        assert repository.ask("HEAD", f"manifests/{digest_of(each)}").status == 404


def test_deleting_blobs(repository: Repository) -> None:
    digest = repository.push(b"a blob that nothing needs")
    assert repository.ask("DELETE", f"blobs/{digest}").status == 202
    answer = repository.ask("GET", f"blobs/{digest}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    assert repository.ask("HEAD", f"blobs/{digest}").status == 404


def test_deleting_a_blob_that_an_image_needs(repository: Repository) -> None:
    """A registry may refuse it (405)."""
    repository.put_image("1")
    answer = repository.ask("DELETE", f"blobs/{digest_of(b'layer')}")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert repository.ask("GET", f"blobs/{digest_of(b'layer')}").status == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("manifests/none", "MANIFEST_UNKNOWN"),
        (f"manifests/{digest_of(b'none')}", "MANIFEST_UNKNOWN"),
        (f"blobs/{digest_of(b'none')}", "BLOB_UNKNOWN"),
    ],
)
def test_deleting_what_is_not_there(repository: Repository, path: str, code: str) -> None:
    repository.push(b"the repository is there")
    answer = repository.ask("DELETE", path)
    assert (answer.status, answer.code) == (404, code)


def test_pushing_again_what_was_deleted(repository: Repository) -> None:
    manifest = repository.put_image("1")
    repository.ask("DELETE", f"manifests/{digest_of(manifest)}")
    repository.ask("DELETE", f"blobs/{digest_of(b'layer')}")
    assert repository.put_image("1") == manifest
    assert repository.ask("GET", "manifests/1").body == manifest
    assert repository.ask("GET", f"blobs/{digest_of(b'layer')}").body == b"layer"
