"""Reading what a registry answered: hostile until it has passed here."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

from ...oci.digest import Digest
from ...oci.documents import read_object
from ...oci.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    TagInvalid,
    Unknown,
    Untrustworthy,
)
from ...oci.links import next_target
from ...oci.ranges import ByteRange, ContentRange
from ...oci.reference import parse_tag
from ..endpoint import MIB

_UNKNOWN: dict[str, type[Unknown]] = {
    "NAME_UNKNOWN": NameUnknown,
    "MANIFEST_UNKNOWN": ManifestUnknown,
    "BLOB_UNKNOWN": BlobUnknown,
}
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})", re.ASCII | re.IGNORECASE)
_MOST_TAGS = 400_000  # on one page: some 40 MB while it is read
_GZIP_MAGIC = b"\x1f\x8b"
_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))


def claimed_digest(headers: Mapping[str, str]) -> Digest | None:
    """Docker-Content-Digest: a claim, or nothing when it is missing or malformed."""
    try:
        return Digest.parse(headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None


def media_type(headers: Mapping[str, str]) -> str:
    """The Content-Type without its parameters; empty when there is none."""
    return headers.get("Content-Type", "").partition(";")[0].strip(" \t").lower()


def is_of_a_registry(headers: Mapping[str, str]) -> bool:
    """Whether the Content-Type is one that only registries send, if not one that is read here
    (Docker's schema 1)."""
    return media_type(headers).startswith("application/vnd.")


def encoding(headers: Mapping[str, str]) -> str:
    """The Content-Encoding; empty for the identity that was asked for."""
    name = headers.get("Content-Encoding", "").strip(" \t").lower()
    return "" if name == "identity" else name


def is_page(headers: Mapping[str, str]) -> bool:
    """Whether it is for people: a page to sign in at, a filter's, a console."""
    return media_type(headers) == "text/html"


def refuse_web_page(headers: Mapping[str, str], where: str) -> None:
    """What answers a question with a web page says nothing of a blob. Raises Untrustworthy."""
    if is_page(headers):
        raise Untrustworthy(f"{where} sent a web page instead of a blob")


def decoded(data: bytes, headers: Mapping[str, str], limit: int, where: str) -> bytes:
    """The bytes of a small answer, at most `limit`: gzip and deflate are undone though they were
    not asked for. Any other Content-Encoding, and one that is not so, is taken for a label alone:
    object stores keep the ones that were uploaded with an object, and no client heeds them.

    A digest is proven afterwards, so this gives a manifest a chance and no more. Raises
    Untrustworthy for what breaks off, and for what unfolds beyond the limit.
    """
    name = encoding(headers)
    if name in ("gzip", "x-gzip") and data.startswith(_GZIP_MAGIC):
        unfold = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    elif name == "deflate" and not data.lstrip().startswith(b"{"):
        unfold = zlib.decompressobj()
    else:
        return data
    try:
        plain = unfold.decompress(data, limit + 1)
    except zlib.error:
        raise Untrustworthy(f"{where} sent broken {name}") from None
    if len(plain) > limit:
        raise Untrustworthy(f"{where} sent {name} that unfolds to more than {limit // MIB} MiB")
    if not unfold.eof:
        raise Untrustworthy(f"{where} sent {name} without its end")
    return plain


def unknown(body: bytes | None, message: str, missing: type[Unknown]) -> Unknown:
    """A 404, by its error document when that tells what is missing, else as `missing`."""
    return next((_UNKNOWN[code] for code in _codes(body) if code in _UNKNOWN), missing)(message)


def _codes(body: bytes | None) -> list[str]:
    """The error codes of an error document (distribution-spec, "Error Codes")."""
    try:
        errors = read_object(body or b"").get("errors")
    except Untrustworthy:
        return []
    if not isinstance(errors, list):
        return []
    codes = (error.get("code") for error in errors if isinstance(error, dict))
    return [code for code in codes if isinstance(code, str)]


def delivered(headers: Mapping[str, str], asked: ByteRange, length: int | None) -> ContentRange:
    """What a 206 brings, when that is what was asked: from its start, to its end or the content's.

    `length` is its Content-Length. Raises Untrustworthy otherwise: to use other bytes than those
    asked for would splice them into the wrong place.
    """
    part = ContentRange.parse(headers.get("Content-Range"))
    if part is None:
        raise Untrustworthy("a 206 with a missing or broken Content-Range")
    ends = {end for end in (asked.stop, part.total) if end is not None}
    if part.start != asked.start or (ends and part.stop != min(ends)):
        raise Untrustworthy(f"a 206 with {part}, which was not asked for")
    if length is not None and length != part.stop - part.start:
        raise Untrustworthy(f"a 206 with {part}, but of {length} bytes")
    return part


def size_of_unsatisfied(headers: Mapping[str, str]) -> int | None:
    """How long a 416 says that the content is (RFC 9110, 15.5.17)."""
    match = _UNSATISFIED.fullmatch(headers.get("Content-Range", "").strip(" \t"))
    return int(match[1]) if match else None


def tag_names(data: bytes) -> tuple[str, ...]:
    """The tags of a tag list, each once, those left out that no tag can be called. Raises
    Untrustworthy."""
    tags = read_object(data, _MOST_TAGS).get("tags")
    if tags is None:  # a repository without tags, to Docker's registry
        return ()
    if not isinstance(tags, list):
        raise Untrustworthy("the tag list has no list of tags")
    return tuple(dict.fromkeys(tag for tag in tags if isinstance(tag, str) and _is_tag(tag)))


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except TagInvalid:
        return False
    return True


def tag_to_go_on_after(query: str, tags: Sequence[str]) -> str | None:
    """The tag behind which the page begins that this query of a link leads to, where it says no
    more than that, or nothing: then it is the last of these, the page's (distribution-spec,
    "Listing Tags"). None where it has other words, which only the registry understands."""
    fields = dict(parse_qsl(query, keep_blank_values=True))
    last = fields.get("last", "")
    if not fields.keys() <= {"n", "last"} or (last and not _is_tag(last)):
        return None
    return last or (tags[-1] if tags else None)


def next_query(links: Sequence[str]) -> str | None:
    """The query of the next page's URL by the Link headers (RFC 8288), "" where it has none that
    can be read; None at the end. The rest of the URL is never taken. What a query cannot carry as
    it is, is escaped."""
    target = next_target(links)
    if target is None:
        return None
    try:
        query = urlsplit(target).query
    except ValueError:
        return ""
    return quote(query, safe=_AS_IT_IS, errors="surrogateescape")
