"""What a request at a hosted name asks for: the endpoints that the mirror has, uploads, and the
catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import hdrs

from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import BadRequest, DigestInvalid, NameUnknown, UploadUnknown, quoted
from ..v2.target import Target, TargetKind, parse_path

_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads(?:/([^/]*))?")
_SESSION = re.compile(r"[A-Za-z0-9]{1,128}", re.ASCII)
_CATALOG = ("/v2/_catalog", "/v2/_catalog/")
# Of the specification: `<start>-<end>`. Docker's registry reads `bytes …/…` of other clients too.
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")

_READS = (hdrs.METH_GET, hdrs.METH_HEAD)
_METHODS: Mapping[TargetKind, tuple[str, ...]] = {
    TargetKind.PING: _READS,
    TargetKind.MANIFEST: (*_READS, hdrs.METH_PUT, hdrs.METH_DELETE),
    TargetKind.TAG: (*_READS, hdrs.METH_PUT, hdrs.METH_DELETE),
    TargetKind.BLOB: (*_READS, hdrs.METH_DELETE),
    TargetKind.TAGS: _READS,
    TargetKind.REFERRERS: _READS,
    TargetKind.CATALOG: _READS,
}
_OF_A_SESSION = (*_READS, hdrs.METH_PATCH, hdrs.METH_PUT, hdrs.METH_DELETE)


def parse_hosted(path: str) -> Target:
    """Which endpoint a path means. Of an upload the reference is the session's id, "" where one is
    to be begun.

    Raises BadRequest for words that are no tag or digest, NameUnknown for other endpoints,
    UploadUnknown for what can be no session's id.

    >>> parse_hosted("/v2/team/app/blobs/uploads/").kind
    <TargetKind.UPLOAD: 'upload'>
    """
    if path in _CATALOG:
        return Target(TargetKind.CATALOG)
    upload = _UPLOAD.fullmatch(path)
    if upload is not None:
        session = upload[2] or ""
        if session and not _SESSION.fullmatch(session):
            raise UploadUnknown(f"there is no upload {quoted(session)}")
        return Target(TargetKind.UPLOAD, upload[1], session)
    target = parse_path(path)
    if target.before:
        raise NameUnknown("there is nothing before /v2/ here")
    return target


def methods_of(target: Target) -> tuple[str, ...]:
    """Those that the endpoint knows."""
    if target.kind is TargetKind.UPLOAD:
        return _OF_A_SESSION if target.reference else (hdrs.METH_POST,)
    return _METHODS[target.kind]


def parse_digest(text: str | None, of: str) -> Digest:
    """The digest that a query has to name. Raises DigestInvalid, also where there is none."""
    if not text:
        raise DigestInvalid(f"(no {of})")
    return Digest.parse(text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bytes of a session that a request has: from `start` up to `stop`."""

    start: int
    stop: int


def parse_content_range(text: str | None) -> Chunk | None:
    """`<start>-<end>`, the last byte included ("Pushing a blob in chunks"). Raises BadRequest.

    >>> parse_content_range("0-9")
    Chunk(start=0, stop=10)
    """
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text.strip(" \t"))
    if match is None or int(match[1]) > int(match[2]):
        raise BadRequest(f"a Content-Range is <start>-<end>, as in 0-1023, not {quoted(text)}")
    return Chunk(int(match[1]), int(match[2]) + 1)
