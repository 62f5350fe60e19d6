"""Which status a failure gets, as tables."""

from __future__ import annotations

import json
from itertools import product

import pytest

from mirror.oci.errors import (
    BlobUnknown,
    Denied,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RangeInvalid,
    RateLimited,
    Refused,
    RegistryError,
    TagInvalid,
    Unavailable,
    Unknown,
    Unsupported,
    Untrustworthy,
)
from mirror.server.v2.failures import failure
from mirror.server.v2.target import TargetKind

DOCKER = "docker/28.5.0 go/go1.24 git-commit/x kernel/6.1 os/linux arch/amd64 UpstreamClient(x)"
CONTAINERD = "containerd/2.1.4"
DOCKER_CONTAINERD = "docker/28.5.0 go/go1.24 containerd-client/2.1.4+unknown storage-driver/x"
SKOPEO = "skopeo/1.18.0"
PODMAN = "containers/5.34.0 (github.com/containers/image)"
LIBPOD = "libpod/4.3.1"

WAIT_FOR_429 = [SKOPEO, PODMAN, LIBPOD, "Buildah/1.39.3", "cri-o/1.32.0 go/go1.23 os/linux"]
DO_NOT = [DOCKER, CONTAINERD, DOCKER_CONTAINERD, "curl/8.0", "", "x skopeo/1", "buildkit/v0.1"]
CANNOT_GO_ELSEWHERE = [TargetKind.MANIFEST, TargetKind.BLOB, TargetKind.TAGS]

HOPELESS = [
    (NameInvalid("X"), 400, "NAME_INVALID"),
    (TagInvalid("-"), 400, "TAG_INVALID"),
    (DigestInvalid("x"), 400, "DIGEST_INVALID"),
    (RangeInvalid(10), 416, "RANGE_INVALID"),
    (Unsupported("no"), 405, "UNSUPPORTED"),
    (Denied("no"), 403, "DENIED"),
    (NameUnknown("no"), 404, "NAME_UNKNOWN"),
    (ManifestUnknown("no"), 404, "MANIFEST_UNKNOWN"),
    (BlobUnknown("no"), 404, "BLOB_UNKNOWN"),
    (RegistryError("no"), 500, "UNKNOWN"),
]
MAY_COME_BACK = [
    (Unavailable("later"), 503, "UNAVAILABLE"),
    (RateLimited("later"), 503, "TOOMANYREQUESTS"),
    (Untrustworthy("wrong bytes"), 502, "MANIFEST_INVALID"),
]


@pytest.mark.parametrize(("error", "status", "code"), HOPELESS)
def test_what_is_hopeless_is_told_everybody_as_it_is(
    error: RegistryError, status: int, code: str
) -> None:
    for kind, agent in product(TargetKind, WAIT_FOR_429 + DO_NOT):
        answer = failure(error, kind, agent, "an-id")
        assert (answer.status, answer.code) == (status, code)
        assert "Retry-After" not in answer.headers


def _code_of(code: str, kind: TargetKind) -> str:
    """Wrong bytes are told in the words of what was asked for."""
    return "DIGEST_INVALID" if (code, kind) == ("MANIFEST_INVALID", TargetKind.BLOB) else code


@pytest.mark.parametrize(("error", "status", "code"), MAY_COME_BACK)
def test_what_may_come_back_is_5xx_with_retry_after_and_never_429(
    error: RegistryError, status: int, code: str
) -> None:
    for kind, agent in product(TargetKind, DO_NOT):
        answer = failure(error, kind, agent, "an-id")
        assert (answer.status, answer.code) == (status, _code_of(code, kind))
        assert answer.headers["Retry-After"] == "5"


@pytest.mark.parametrize(("error", "status", "code"), MAY_COME_BACK)
def test_who_waits_for_429_gets_it_for_what_it_cannot_get_elsewhere(
    error: RegistryError, status: int, code: str
) -> None:
    for kind, agent in product(TargetKind, WAIT_FOR_429):
        answer = failure(error, kind, agent, "an-id")
        if kind in CANNOT_GO_ELSEWHERE:
            assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        else:
            assert (answer.status, answer.code) == (status, code)
        assert answer.headers["Retry-After"] == "5"
        assert error.message in json.loads(answer.body)["errors"][0]["message"]


def test_nobody_is_made_to_wait_for_a_429_that_lasts_longer_than_anybody_waits() -> None:
    for kind, agent in product(CANNOT_GO_ELSEWHERE, WAIT_FOR_429):
        for error in (RateLimited("until noon", retry_after=3600), Unavailable("", retry_after=61)):
            answer = failure(error, kind, agent, "an-id")
            assert (answer.status, answer.code) == (503, error.code)
            assert answer.headers["Retry-After"] == str(int(error.retry_after or 0))
        assert failure(RateLimited("soon", retry_after=60), kind, agent, "an-id").status == 429


def test_what_the_upstream_does_not_take_is_told_as_the_parameters_fault_or_as_denied() -> None:
    for kind, agent in product(TargetKind, WAIT_FOR_429 + DO_NOT):
        answer = failure(Refused("n is too large"), kind, agent, "an-id")
        of_lists = kind in (TargetKind.TAGS, TargetKind.REFERRERS)
        expected = (400, "UNSUPPORTED") if of_lists else (403, "DENIED")
        assert (answer.status, answer.code) == expected


def test_nobody_is_ever_challenged() -> None:
    errors = [error for error, *_ in HOPELESS + MAY_COME_BACK]
    for error, kind, agent in product(errors, TargetKind, WAIT_FOR_429 + DO_NOT):
        answer = failure(error, kind, agent, "an-id")
        assert answer.status != 401
        assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "5"),
        (0.0, "1"),
        (0.2, "1"),
        (1.0, "1"),
        (1.01, "2"),
        (30.0, "30"),
        (86400.0, "86400"),
    ],
)
def test_retry_after_is_whole_seconds_never_too_early(seconds: float | None, told: str) -> None:
    answer = failure(Unavailable("later", retry_after=seconds), TargetKind.BLOB, DOCKER, "an-id")
    assert answer.headers["Retry-After"] == told


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (TargetKind.TAG, "MANIFEST_UNKNOWN"),
        (TargetKind.MANIFEST, "MANIFEST_UNKNOWN"),
        (TargetKind.BLOB, "BLOB_UNKNOWN"),
        (TargetKind.TAGS, "NAME_UNKNOWN"),
        (TargetKind.REFERRERS, "NAME_UNKNOWN"),
    ],
)
def test_an_unknown_without_a_name_is_called_by_what_was_asked(kind: TargetKind, code: str) -> None:
    answer = failure(Unknown("gone"), kind, DOCKER, "an-id")
    assert (answer.status, answer.code) == (404, code)
    [error] = json.loads(answer.body)["errors"]
    assert (error["code"], error["message"]) == (code, "gone")


def test_what_may_be_done_instead_is_in_the_headers() -> None:
    assert failure(RangeInvalid(10), TargetKind.BLOB, "", "an-id").headers == {
        "Content-Range": "bytes */10"
    }
    assert failure(Unsupported("no"), TargetKind.OTHER, "", "an-id").headers == {
        "Allow": "GET, HEAD"
    }
