"""Lists of referrers (distribution-spec, "Listing Referrers"): OCI indexes, whole and filtered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .digest import Digest
from .manifests import OCI_INDEX

MOST_PAGES = 500

NONE = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()


def together(pages: Sequence[bytes]) -> bytes:
    """One list of all these, which `read_manifest` took for OCI indexes."""
    if len(pages) == 1:
        return pages[0]
    document = json.loads(pages[0])
    return json.dumps(
        {**document, "manifests": [entry for page in pages for entry in _entries(page)]}
    ).encode()


def of_type(data: bytes, artifact_type: str) -> bytes:
    """The list without the artifacts of other types."""
    entries = _entries(data)
    wanted = [entry for entry in entries if entry.get("artifactType") == artifact_type]
    if len(wanted) == len(entries):
        return data
    return json.dumps({**json.loads(data), "manifests": wanted}).encode()


def count(data: bytes) -> int:
    """How many the list has."""
    return len(_entries(data))


def named(data: bytes) -> list[Digest]:
    """The digests of its manifests."""
    return [Digest.parse(entry["digest"]) for entry in _entries(data)]


def fallback_tag(subject: Digest) -> str:
    """The tag of the list in a registry that has no such API (distribution-spec, "Referrers Tag
    Schema"): `sha256-` and the hex digits, of a longer digest as many as a tag can have."""
    return f"{subject.algorithm}-{subject.hex[:64]}"


def _entries(data: bytes) -> list[dict[str, Any]]:
    return json.loads(data).get("manifests") or []
