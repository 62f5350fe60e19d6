"""Descriptors: what a piece of content is, without its bytes."""

from __future__ import annotations

from ..frozen import dataclass
from .digest import Digest

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI descriptor (image-spec, descriptor.md): media type, digest, size in bytes.

    `size` is None only for a blob whose upstream gave no length and whose end has not come yet.
    """

    media_type: str
    digest: Digest
    size: int | None
