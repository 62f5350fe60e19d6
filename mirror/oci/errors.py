"""The one table of failures: each exception is a registry error code with its HTTP status.

Codes are those of the OCI distribution-spec ("Error Codes"), plus UNAVAILABLE, RANGE_INVALID and
TAG_INVALID of Docker's registry for what the specification has no word for. The status here is the
default; which status a given client is best served with is decided in `server/failures.py`.
"""

from __future__ import annotations

import json
from typing import Self


def quoted(text: str, limit: int = 80) -> str:
    """Hostile text made fit for a message: escaped, and cut at `limit` characters."""
    shown = ascii(text[:limit])
    return shown if len(text) <= limit else shown + "…"


class RegistryError(Exception):
    """A failure that has an answer in the registry protocol.

    `retry_after` is in seconds: when asking again may help, where that is known.
    """

    code = "UNKNOWN"
    status = 500

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after

    def bare(self) -> Self:
        """To be kept: an error holds the frames that it went through, and those what they held, in
        a circle where one of them has kept the error."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class BadRequest(RegistryError):
    """The client's words are not of the protocol's grammar."""

    status = 400


class NameInvalid(BadRequest):
    code = "NAME_INVALID"
    write = (
        "is no repository name: write lower-case components joined by '/', 255 characters at most, "
        "as in 'library/redis'"
    )

    def __init__(self, name: str) -> None:
        super().__init__(f"{quoted(name)} {self.write}")


class RegistryInvalid(NameInvalid):
    """What begins a name is no registry's."""

    write = (
        "is no registry: write a host name, and its port if it has one, as in docker.io or "
        "registry.corp.local:5000"
    )


class TagInvalid(BadRequest):
    code = "TAG_INVALID"

    def __init__(self, tag: str) -> None:
        super().__init__(
            f"{quoted(tag)} is neither a tag nor a digest: a tag is 1 to 128 letters, digits, "
            "'_', '.' or '-', not beginning with '.' or '-'"
        )


class DigestInvalid(BadRequest):
    code = "DIGEST_INVALID"

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"{quoted(digest)} is no digest: write sha256: and 64 lower-case hex digits, "
            "or sha512: and 128"
        )


class RangeInvalid(RegistryError):
    """No byte of the asked range exists (RFC 9110, 15.5.17). `size` is the content's, in bytes."""

    code = "RANGE_INVALID"
    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"no byte of this range exists: the content has {size} bytes")
        self.size = size


class Unsupported(RegistryError):
    """A mirror is read-only."""

    code = "UNSUPPORTED"
    status = 405


class Denied(RegistryError):
    """Policy here, or the upstream, does not let this be read."""

    code = "DENIED"
    status = 403


class Refused(Denied):
    """The upstream does not take this very request (a 4xx): its parameters, its method, or its
    range. Of the upstream's health, and of any other request, that says nothing."""


class Unknown(RegistryError):
    """The upstream, asked and answering, does not have it."""

    status = 404


class NameUnknown(Unknown):
    code = "NAME_UNKNOWN"


class ManifestUnknown(Unknown):
    code = "MANIFEST_UNKNOWN"


class BlobUnknown(Unknown):
    code = "BLOB_UNKNOWN"


class Unavailable(RegistryError):
    """The upstream cannot be asked now, or is of no use now: it may be later."""

    code = "UNAVAILABLE"
    status = 503


class RateLimited(Unavailable):
    """The upstream refuses for a while (429). To clients that is one more way to be unavailable."""

    code = "TOOMANYREQUESTS"


class Untrustworthy(RegistryError):
    """The upstream answered with something else than was asked: wrong bytes, HTML, nonsense."""

    code = "MANIFEST_INVALID"
    status = 502


# Of repositories of one's own. Codes are the specification's ("Error Codes").


class Unauthorized(RegistryError):
    """Who asks is to log in first, or has shown a login that is none. `scope` is what a token has
    to be for, "" for a login alone."""

    code = "UNAUTHORIZED"
    status = 401

    def __init__(self, message: str, *, scope: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.scope = scope


class UploadUnknown(Unknown):
    code = "BLOB_UPLOAD_UNKNOWN"


class UploadInvalid(BadRequest):
    code = "BLOB_UPLOAD_INVALID"


class UploadRangeInvalid(UploadInvalid):
    """A chunk that does not follow what the session has: `size` bytes."""

    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"the upload goes on at byte {size}")
        self.size = size


class SizeInvalid(BadRequest):
    code = "SIZE_INVALID"


class TooLarge(SizeInvalid):
    """A manifest of more bytes than any registry has to take ("Pushing Manifests"), or a blob of
    more than this one does."""

    status = 413


class ContentMismatch(BadRequest):
    """What was pushed is not what its digest names."""

    code = "DIGEST_INVALID"


class ManifestInvalid(BadRequest):
    code = "MANIFEST_INVALID"


class ManifestBlobUnknown(Unknown):
    """A manifest refers to what its repository lacks."""

    code = "MANIFEST_BLOB_UNKNOWN"


class Interrupted(BadRequest):
    """The client left, or its body ended, before all of it was here."""

    code = "BLOB_UPLOAD_INVALID"


class StorageFull(RegistryError):
    """There is no room for what is pushed, now."""

    code = "UNAVAILABLE"
    status = 507


LONGEST_MESSAGE = 1000
"""Characters that a client is told, and shows to its user."""


def render(error: RegistryError, request_id: str) -> bytes:
    """The body of an error answer (distribution-spec, "Error Codes"), as application/json.

    Pure ASCII, whatever the message holds, which is what clients show, and cut where that is long.
    The `detail`, that the specification leaves to the registry, says by which id the log has the
    request.
    """
    detail = {"request_id": request_id}
    message = error.message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}…"
    shown = {"code": error.code, "message": message, "detail": detail}
    return json.dumps({"errors": [shown]}).encode("ascii")
