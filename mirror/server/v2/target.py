"""What a request asks for: the words of its target, read strictly and before anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import parse_qsl

from ...frozen import dataclass
from ...oci.digest import Digest
from ...oci.errors import BadRequest, NameUnknown, quoted
from ...oci.page_markers import read_marker
from ...oci.reference import parse_reference

_MAX_FIELDS = 16
_MAX_COUNT = 10_000
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

# The API's root may have one component before it; only where it does not begin the path, so that
# `/v2/v2/app/…` is the repository v2/app.
_API = re.compile(r"(?:/([^/]+))??/v2(?:/(.*))?", re.DOTALL)


HEALTH = ("/", "/healthz")
"""Paths for load balancers and people, who only want to know whether something answers."""


class TargetKind(StrEnum):
    """What was asked for, as metrics and logs call it. `PING` is any question of whether the mirror
    is there. `MANIFEST` is one asked for by digest: a tag fails in other ways. `UPLOAD` and
    `CATALOG` are hosted names' alone."""

    PING = "ping"
    MANIFEST = "manifest"
    TAG = "tag"
    BLOB = "blob"
    TAGS = "tags"
    REFERRERS = "referrers"
    UPLOAD = "upload"
    CATALOG = "catalog"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Target:
    """One of the endpoints that a mirror has, with its words.

    `before` is what stands before /v2/, "" for nothing, and `name` what stands behind it. Both are
    as the client wrote them, not read yet: a registry may stand at either place (see naming.py).
    `reference` is a Digest, a tag, or "" where the endpoint has none.
    """

    kind: TargetKind
    name: str = ""
    reference: Digest | str = ""
    before: str = ""

    @property
    def is_manifest(self) -> bool:
        return self.kind in (TargetKind.MANIFEST, TargetKind.TAG)

    @property
    def base(self) -> str:
        """The path of the API's root, without the last slash."""
        return f"/{self.before}/v2" if self.before else "/v2"


def split(raw: str) -> tuple[str, str]:
    """Path and query of a request's target as it came over the wire, escapes untouched.

    Absolute-form (`GET http://mirror/v2/`) must be understood (RFC 9112, 3.2.2).

    >>> split("/v2/x/tags/list?n=1"), split("http://mirror:5000/v2/?ns=docker.io")
    (('/v2/x/tags/list', 'n=1'), ('/v2/', 'ns=docker.io'))
    """
    if not raw.startswith("/"):
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    path, _, query = raw.partition("#")[0].partition("?")
    return path, query


def is_endpoint(path: str) -> bool:
    """Whether this mirror has anything at this path, or could have below it."""
    return path in HEALTH or _API.fullmatch(path) is not None


def parse_path(path: str) -> Target:
    """Which endpoint a path means. Nothing is unescaped or normalised: no name, tag or digest has
    a character that needs it, so `%2e%2e%2f`, `//` and the like are simply not of the grammar.

    Raises BadRequest for words that are no tag or digest, NameUnknown for other endpoints.
    """
    api = _API.fullmatch(path)
    if api is None:
        raise NameUnknown("there is nothing here but the registry protocol, below /v2/")
    before, below = api[1] or "", api[2] or ""
    if not below:
        return Target(TargetKind.PING, before=before)
    # From the right: "manifests" and "blobs" are good components of a name too.
    rest, _, last = below.rpartition("/")
    name, _, endpoint = rest.rpartition("/")
    match endpoint:
        case "manifests":
            reference = parse_reference(last)
            kind = TargetKind.MANIFEST if isinstance(reference, Digest) else TargetKind.TAG
            return Target(kind, name, reference, before)
        case "blobs":
            return Target(TargetKind.BLOB, name, Digest.parse(last), before)
        case "referrers":
            return Target(TargetKind.REFERRERS, name, Digest.parse(last), before)
        case "tags" if last == "list":
            return Target(TargetKind.TAGS, name, before=before)
    raise NameUnknown(
        f"{quoted(path)} is no endpoint of this mirror: it has /v2/<name>/manifests/<reference>, "
        "/v2/<name>/blobs/<digest>, /v2/<name>/tags/list and /v2/<name>/referrers/<digest>"
    )


def parse_query(query: str) -> Mapping[str, str]:
    """The query's fields, the first of each name. Raises BadRequest for very many."""
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadRequest(f"the query has more than {_MAX_FIELDS} fields") from None
    return dict(reversed(fields))


def parse_count(text: str | None) -> int | None:
    """`n` of a tag list: how many to list at most (distribution-spec, "Listing Tags").

    More than 10,000 is read as 10,000: what remains is behind the Link header. Raises BadRequest.
    """
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"n is a number of tags, not {quoted(text)}")
    return min(int(text), _MAX_COUNT)


def parse_marker(text: str | None) -> str | None:
    """`last` of a tag list: a tag, or where a page of the mirror's own led; opaque to it otherwise,
    but of a bounded length. Raises BadRequest."""
    if read_marker(text) is not None:
        return text
    if text is not None and (len(text) > 255 or not text.isprintable()):
        raise BadRequest(f"last is the tag to go on after, not {quoted(text)}")
    return text or None


def parse_artifact_type(text: str | None) -> str | None:
    """`artifactType` of a referrers listing: a media type. Raises BadRequest.

    A media type has no space: where a client left the `+` of `…+json` as it is, which a query
    reads as one, it is a `+` again."""
    text = text and text.replace(" ", "+")
    if text and not _MEDIA_TYPE.fullmatch(text):
        raise BadRequest(f"artifactType is a media type, not {quoted(text)}")
    return text or None
