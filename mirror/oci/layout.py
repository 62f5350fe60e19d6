"""Where on its host a registry is: what stands before `/v2/`, and before its repositories' names.

The distribution-spec knows `/v2/<name>/…` alone. People have registries below a path
(`/artifactory/api/docker/hub/v2/<name>/…`), and registries in which what is wanted has a prefix
(`/v2/dockerhub-proxy/<name>/…`: a project of Harbor, a pull-through prefix of ECR).
"""

from __future__ import annotations

import re

from ..frozen import dataclass
from .errors import NameInvalid
from .reference import parse_name

_API = "v2"
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")  # what a URL has unescaped (RFC 3986, 2.3)


@dataclass(frozen=True, slots=True)
class Layout:
    """`path` stands before `/v2/`: empty, or with a slash at its beginning and none at its end.
    `prefix` stands before each repository's name: empty, or without slashes at its ends."""

    path: str = ""
    prefix: str = ""

    @property
    def root(self) -> str:
        """The path that says whether a registry is there (distribution-spec, end-1)."""
        return f"{self.path}/{_API}/"

    def repository(self, name: str) -> str:
        """What the registry calls a repository.

        >>> Layout(prefix="dockerhub-proxy").repository("library/redis")
        'dockerhub-proxy/library/redis'
        """
        return f"{self.prefix}/{name}" if self.prefix else name

    def __str__(self) -> str:
        """As a path that means this alone. Empty for a registry at the root."""
        behind = f"/{self.prefix}" if self.prefix else ""
        return f"{self.path}/{_API}{behind}" if self.path or self.prefix else ""


def layouts(path: str) -> tuple[Layout, ...]:
    """What the path of an endpoint's URL may mean: one layout where it has a segment `v2`, or can
    mean only one; else the path may stand before `/v2/`, or be a prefix, in this order. A prefix is
    in lower case, as repositories' names are.

    Raises NameInvalid where no registry can be at such a path.

    >>> layouts("/v2/dockerhub-proxy")
    (Layout(path='', prefix='dockerhub-proxy'),)
    >>> [str(layout) for layout in layouts("/group/hub")]
    ['/group/hub/v2', '/v2/group/hub']
    """
    if path in ("", "/"):
        return (Layout(),)
    segments = path.removeprefix("/").removesuffix("/").split("/")
    if _API in segments:
        at = segments.index(_API)
        return (Layout(_before(segments[:at]), _prefix(segments[at + 1 :])),)
    before = Layout(_before(segments))
    try:
        return before, Layout(prefix=_prefix([segment.lower() for segment in segments]))
    except NameInvalid:
        return (before,)


def _before(segments: list[str]) -> str:
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise NameInvalid("/".join(segments))
    return "".join(f"/{segment}" for segment in segments)


def _prefix(segments: list[str]) -> str:
    return parse_name("/".join(segments)) if segments else ""
