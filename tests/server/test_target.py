"""Reading a request's target: by the grammar, or refused."""

from __future__ import annotations

import doctest
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.errors import BadRequest, Denied, NameUnknown
from mirror.server import admin
from mirror.server.v2 import access_log as access
from mirror.server.v2 import target
from mirror.server.v2.naming import Naming
from mirror.server.v2.target import Target, TargetKind, parse_path, parse_query, split

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v2", Target(TargetKind.PING)),
        ("/v2/", Target(TargetKind.PING)),
        ("/v2/a/manifests/Latest", Target(TargetKind.TAG, "a", "Latest")),
        (f"/v2/a/b/manifests/{DIGEST}", Target(TargetKind.MANIFEST, "a/b", DIGEST)),
        (f"/v2/a/b/blobs/{DIGEST}", Target(TargetKind.BLOB, "a/b", DIGEST)),
        (f"/v2/a/referrers/{DIGEST}", Target(TargetKind.REFERRERS, "a", DIGEST)),
        ("/v2/a/tags/list", Target(TargetKind.TAGS, "a")),
        ("/v2/tags/list/tags/list", Target(TargetKind.TAGS, "tags/list")),
        ("/v2/a/manifests/b/manifests/c", Target(TargetKind.TAG, "a/manifests/b", "c")),
    ],
)
def test_endpoints_are_read_from_the_right(path: str, meant: Target) -> None:
    assert parse_path(path) == meant


@given(st.text(max_size=300))
def test_no_target_raises_anything_but_the_clients_fault(text: str) -> None:
    for raw in (text, f"/v2/{text}", f"/v2/a/manifests/{text}", f"/v2/{text}/manifests/1"):
        # Unknown endpoints, bad words and other registries are the client's faults.
        with suppress(BadRequest, NameUnknown, Denied):
            path, query = split(raw)
            found = parse_path(path)
            if found.name:
                Naming().repository(found.name, parse_query(query).get("ns"))


@pytest.mark.parametrize("module", [access, admin, target])
def test_the_examples_in_the_documentation_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
