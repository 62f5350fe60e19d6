"""Section "Content Discovery"."""

from __future__ import annotations

import json
import re

import pytest

from .registry import EMPTY, IMAGE, INDEX, Registry, Repository, descriptor, digest_of, image, index

ONE, TWO = "application/vnd.example.one", "application/vnd.example.two+json"
LINK = re.compile(r'<([^>]+)>; *rel="?next"?')


def test_listing_tags(repository: Repository) -> None:
    """In lexical order: upper case before lower, digits before both."""
    manifest = repository.put_image("b")
    tags = ["a", "Z", "0", "a-1", "a.1", "_"]
    for tag in tags:
        assert repository.put(manifest, tag).status == 201
    answer = repository.ask("GET", "tags/list")
    assert answer.status == 200
    assert answer.json == {
        "name": repository.name,
        "tags": sorted([*tags, "b"]),
    }
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Link"] is None


def test_listing_tags_by_pages(repository: Repository) -> None:
    manifest = repository.put_image("0")
    tags = [f"{number:02}" for number in range(10)]
    for tag in tags:
        repository.put(manifest, tag)
    found, path = [], f"/v2/{repository.name}/tags/list?n=4"
    repository.ask("DELETE", "manifests/0")
    for _ in range(5):
        answer = repository.registry.ask("GET", path)
        found.append(answer.json["tags"])
        link = answer.headers["Link"]
        if link is None:
            break
        match = LINK.fullmatch(link)
        assert match is not None, link
        path = match[1]
    assert [len(page) for page in found] == [4, 4, 2]
    assert [tag for page in found for tag in page] == tags
    last = repository.ask("GET", "tags/list?n=3&last=04").json["tags"]
    assert last == ["05", "06", "07"]
    assert repository.ask("GET", "tags/list?last=04a").json["tags"] == tags[5:]
    assert repository.ask("GET", "tags/list?last=zz").json["tags"] == []


def test_listing_no_tags(repository: Repository) -> None:
    repository.put_image("1")
    answer = repository.ask("GET", "tags/list?n=0")
    assert (answer.status, answer.json["tags"]) == (200, [])
    assert answer.headers["Link"] is None


@pytest.mark.parametrize("count", ["-1", "many", "1.5"])
def test_a_number_of_tags_that_is_none(repository: Repository, count: str) -> None:
    repository.put_image("1")
    assert repository.ask("GET", f"tags/list?n={count}").status == 400


def test_listing_tags_of_a_repository_that_is_not_there(repository: Repository) -> None:
    answer = repository.ask("GET", "tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def referring(repository: Repository) -> tuple[str, dict[str, bytes]]:
    """The digest of a subject, and who refers to it by artifact type: two artifacts, an image
    (whose type is that of its config), and an index."""
    subject = repository.put_image("subject")
    to = descriptor(subject, IMAGE)
    repository.push(b"a config of its own")
    own = descriptor(b"a config of its own", "application/vnd.example.config")
    empty = descriptor(b"{}", EMPTY)
    artifact = {"config": empty, "layers": [empty], "subject": to, "annotations": {"who": "me"}}
    found = {
        ONE: image(artifactType=ONE, **artifact),
        TWO: image(artifactType=TWO, **artifact),
        own["mediaType"]: image(config=own, subject=to),
    }
    for each in found.values():
        assert repository.put(each).status == 201
    listed = index([], subject=to, artifactType="application/vnd.example.index")
    assert repository.put(listed, "", INDEX).status == 201
    found["application/vnd.example.index"] = listed
    return digest_of(subject), found


def test_listing_referrers(repository: Repository) -> None:
    subject, referrers = referring(repository)
    answer = repository.ask("GET", f"referrers/{subject}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, INDEX)
    assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, INDEX)
    listed = {each["artifactType"]: each for each in answer.json["manifests"]}
    assert set(listed) == set(referrers)
    for kind, manifest in referrers.items():
        document = json.loads(manifest)
        assert listed[kind]["digest"] == digest_of(manifest)
        assert listed[kind]["size"] == len(manifest)
        assert listed[kind]["mediaType"] == document["mediaType"]
        assert listed[kind].get("annotations", {}) == document.get("annotations", {})


@pytest.mark.parametrize("spelt", [ONE, TWO, TWO.replace("+", "%2B").replace("/", "%2F")])
def test_listing_referrers_of_one_artifact_type(repository: Repository, spelt: str) -> None:
    subject, referrers = referring(repository)
    answer = repository.ask("GET", f"referrers/{subject}?artifactType={spelt}")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    kind = ONE if spelt == ONE else TWO
    assert [each["digest"] for each in answer.json["manifests"]] == [digest_of(referrers[kind])]


def test_listing_referrers_by_pages(repository: Repository) -> None:
    subject, referrers = referring(repository)
    path: str | None = f"/v2/{repository.name}/referrers/{subject}?n=3"
    found: list[list[str]] = []
    while path is not None:
        answer = repository.registry.ask("GET", path)
        assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, INDEX)
        found.append([each["digest"] for each in answer.json["manifests"]])
        link = LINK.fullmatch(answer.headers["Link"] or "")
        path = link[1] if link else None
    assert [len(each) for each in found] == [3, 1]
    assert {each for listed in found for each in listed} == set(map(digest_of, referrers.values()))


def test_listing_no_referrers(repository: Repository) -> None:
    """Never a 404, which would say that the registry has no such list."""
    for _ in range(2):
        answer = repository.ask("GET", f"referrers/{digest_of(b'nobody')}")
        assert (answer.status, answer.json["manifests"]) == (200, [])
        repository.push(b"now the repository is there")


def test_referrers_of_a_subject_that_came_later(repository: Repository) -> None:
    subject = image()
    repository.put_image(layers=(b"artifact",), subject=descriptor(subject, IMAGE))
    repository.put_image()
    answer = repository.ask("GET", f"referrers/{digest_of(subject)}")
    assert len(answer.json["manifests"]) == 1


def test_referrers_by_a_fallback_tag(repository: Repository) -> None:
    """Of clients that know no other way: an ordinary tag."""
    subject = repository.put_image("1")
    tag = digest_of(subject).replace(":", "-")
    listed = index([subject])
    assert repository.put(listed, tag, INDEX).status == 201
    assert repository.ask("GET", f"manifests/{tag}").body == listed


def test_the_catalog(registry: Registry) -> None:
    """Not of the specification: of Docker's registry."""
    names = sorted(registry.new_repository().name for _ in range(3))
    for name in names:
        Repository(registry, name).push(b"x")
    found: list[str] = []
    path: str | None = "/v2/_catalog?n=2"
    while path is not None:
        answer = registry.ask("GET", path)
        assert answer.status == 200
        found += answer.json["repositories"]
        link = LINK.fullmatch(answer.headers["Link"] or "")
        path = link[1] if link else None
    assert [name for name in found if name in names] == names
    assert found == sorted(found)
