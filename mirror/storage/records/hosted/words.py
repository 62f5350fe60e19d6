"""Rows of hosted records, and what they mean to others: pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ....contracts.hosted import (
    HostedManifest,
    HostedRepository,
    HostedTag,
    RetentionRule,
    Visibility,
)
from ....oci.digest import Digest
from ....oci.manifests import Platform
from .tables import manifests, repositories, tags

REPOSITORY = (
    repositories.c.name,
    repositories.c.visibility,
    repositories.c.created_at,
    repositories.c.pushed_at,
    repositories.c.description,
    repositories.c.immutable,
    repositories.c.retention,
)
TAG = (tags.c.name, tags.c.digest, tags.c.moved_at, tags.c.moved_by)
MANIFEST = (
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.size,
    manifests.c.image_size,
    manifests.c.subject,
    manifests.c.artifact_type,
    manifests.c.pushed_at,
    manifests.c.pushed_by,
    manifests.c.details,
)

_AT_ONCE = 500  # digests in one statement
_NOT_IN_TEXT = str.maketrans("", "", "\0")


def clean(text: str) -> str:
    """A stranger's words as a database takes them: PostgreSQL has no NUL in a text, and neither
    has half a surrogate pair."""
    if text.isascii() and "\0" not in text:
        return text
    return text.translate(_NOT_IN_TEXT).encode("utf-8", "replace").decode()


def slices(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as one statement takes."""
    for start in range(0, len(digests), _AT_ONCE):
        yield digests[start : start + _AT_ONCE]


def repository_of(row: Sequence[Any]) -> HostedRepository:
    name, visibility, created_at, pushed_at, description, immutable, retention = row
    return HostedRepository(
        name,
        Visibility(visibility),
        created_at,
        pushed_at,
        description,
        tuple(json.loads(immutable)),
        tuple(
            RetentionRule(tuple(match), keep, younger, untagged)
            for match, keep, younger, untagged in json.loads(retention)
        ),
    )


def retention_text(rules: Sequence[RetentionRule]) -> str:
    return json.dumps([[rule.match, rule.keep, rule.younger, rule.untagged] for rule in rules])


def tag_of(row: Sequence[Any]) -> HostedTag:
    name, digest, moved_at, moved_by = row
    return HostedTag(name, Digest.parse(digest), moved_at, moved_by)


def manifest_of(row: Sequence[Any]) -> HostedManifest:
    digest, media_type, size, image_size, subject, artifact_type, pushed_at, pushed_by, text = row
    details = json.loads(text)
    return HostedManifest(
        Digest.parse(digest),
        media_type,
        size,
        tuple(map(Digest.parse, details.get("blobs", ()))),
        tuple(map(Digest.parse, details.get("manifests", ()))),
        None if subject is None else Digest.parse(subject),
        artifact_type,
        details.get("annotations", {}),
        tuple(Platform(*each) for each in details.get("platforms", ())),
        image_size,
        pushed_at,
        pushed_by,
    )


def manifest_row(manifest: HostedManifest) -> dict[str, object]:
    """But for whose it is, and when it was pushed."""
    details: dict[str, object] = {
        "blobs": [str(each) for each in manifest.blobs],
        "manifests": [str(each) for each in manifest.manifests],
        "annotations": dict(manifest.annotations),
        "platforms": [[each.os, each.architecture, each.variant] for each in manifest.platforms],
    }
    return {
        "digest": str(manifest.digest),
        "media_type": clean(manifest.media_type),
        "size": manifest.size,
        "image_size": manifest.image_size,
        "subject": None if manifest.subject is None else str(manifest.subject),
        "artifact_type": None if manifest.artifact_type is None else clean(manifest.artifact_type),
        "details": json.dumps({name: value for name, value in details.items() if value}),
    }
