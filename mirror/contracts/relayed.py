"""Errors of an upload, as one node tells another of them: what a client would be told here, it is
told by the node that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..oci.errors import (
    ContentMismatch,
    DigestInvalid,
    Interrupted,
    RateLimited,
    RegistryError,
    SizeInvalid,
    StorageFull,
    TooLarge,
    Unavailable,
    UploadRangeInvalid,
    UploadUnknown,
)
from .content import StoreFull

_PLAIN: Mapping[str, type[RegistryError]] = {
    kind.__name__: kind
    for kind in (
        ContentMismatch,
        Interrupted,
        RateLimited,
        SizeInvalid,
        StorageFull,
        TooLarge,
        Unavailable,
        UploadUnknown,
    )
}
_LONGEST = 1000  # characters of a message


def words_of(error: RegistryError | StoreFull) -> dict[str, Any]:
    """
    >>> words_of(UploadRangeInvalid(7))["size"]
    7
    """
    if isinstance(error, StoreFull):
        return {"error": "StoreFull", "message": str(error)}
    kind = "Unavailable" if isinstance(error, DigestInvalid) else type(error).__name__
    told: dict[str, Any] = {"error": kind, "message": error.message}
    if error.retry_after is not None:
        told["retry_after"] = error.retry_after
    if isinstance(error, UploadRangeInvalid):
        told["size"] = error.size
    return told


def error_of(words: Mapping[str, Any]) -> RegistryError | StoreFull:
    """Raises KeyError, TypeError or ValueError where it tells of no error.

    >>> error_of(words_of(UploadUnknown("it is gone"))).message
    'it is gone'
    """
    kind, message = str(words["error"]), str(words["message"])[:_LONGEST]
    if kind == "StoreFull":
        return StoreFull(message)
    if kind == "UploadRangeInvalid":
        return UploadRangeInvalid(int(words["size"]))
    after = words.get("retry_after")
    retry_after = None if after is None else float(after)
    return _PLAIN.get(kind, Unavailable)(message, retry_after=retry_after)
