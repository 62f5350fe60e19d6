"""The status of a failure at a hosted name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mirror.oci import errors
from mirror.server.hosted.failures import failure
from mirror.server.v2.target import TargetKind

TABLE = [
    (errors.NameInvalid("X"), 400, "NAME_INVALID", {}),
    (errors.DigestInvalid("x"), 400, "DIGEST_INVALID", {}),
    (errors.ContentMismatch("x"), 400, "DIGEST_INVALID", {}),
    (errors.SizeInvalid("x"), 400, "SIZE_INVALID", {}),
    (errors.TooLarge("x"), 413, "SIZE_INVALID", {}),
    (errors.ManifestInvalid("x"), 400, "MANIFEST_INVALID", {}),
    (errors.ManifestBlobUnknown("x"), 404, "MANIFEST_BLOB_UNKNOWN", {}),
    (errors.NameUnknown("x"), 404, "NAME_UNKNOWN", {}),
    (errors.UploadUnknown("x"), 404, "BLOB_UPLOAD_UNKNOWN", {}),
    (errors.UploadInvalid("x"), 400, "BLOB_UPLOAD_INVALID", {}),
    (errors.UploadRangeInvalid(7), 416, "BLOB_UPLOAD_INVALID", {}),
    (errors.Interrupted("x"), 400, "BLOB_UPLOAD_INVALID", {}),
    (errors.RangeInvalid(9), 416, "RANGE_INVALID", {"Content-Range": "bytes */9"}),
    (errors.Denied("x"), 403, "DENIED", {}),
    (errors.Unauthorized("x"), 401, "UNAUTHORIZED", {"WWW-Authenticate": "Bearer x"}),
    (errors.Unauthorized("x", retry_after=1.2), 429, "TOOMANYREQUESTS", {"Retry-After": "2"}),
    (errors.RateLimited("x", retry_after=0), 429, "TOOMANYREQUESTS", {"Retry-After": "1"}),
    (errors.Unsupported("x"), 405, "UNSUPPORTED", {"Allow": "GET, PUT"}),
    (errors.Unavailable("x"), 503, "UNAVAILABLE", {"Retry-After": "5"}),
    (errors.StorageFull("x"), 507, "UNAVAILABLE", {"Retry-After": "5"}),
]


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"), TABLE, ids=lambda each: type(each).__name__
)
def test_each_failure_has_its_status(
    error: errors.RegistryError, status: int, code: str, headers: dict[str, str]
) -> None:
    told = failure(error, TargetKind.BLOB, "id", methods=("GET", "PUT"), challenge="Bearer x")
    assert (told.status, told.code, told.headers) == (status, code, headers)
    shown = json.loads(told.body)["errors"][0]
    assert (shown["code"], shown["detail"]) == (code, {"request_id": "id"})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (TargetKind.BLOB, "BLOB_UNKNOWN"),
        (TargetKind.TAG, "MANIFEST_UNKNOWN"),
        (TargetKind.MANIFEST, "MANIFEST_UNKNOWN"),
        (TargetKind.TAGS, "NAME_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_called_by_what_was_asked_for(kind: TargetKind, code: str) -> None:
    told = failure(errors.Unknown("x"), kind, "id")
    assert (told.status, told.code) == (404, code)


def test_a_mirror_that_hosts_nothing_imports_nothing_for_it() -> None:
    """Its memory and its start are as they were."""
    names = ("sqlalchemy", "alembic", "bcrypt", "jwt")
    code = f"import mirror.app, sys; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
