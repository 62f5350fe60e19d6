"""What a line of a list, or of the key `sync`, means: an image, or several by a pattern."""

from __future__ import annotations

import re
from fnmatch import translate

from ..frozen import dataclass
from .errors import BadRequest, quoted
from .reference import ImageReference, Repository, parse_image
from .registries import looks_like_registry, official, parse_registry

_PATTERN = re.compile(r"[*?\[]")
_LONGEST = 512  # characters


@dataclass(frozen=True, slots=True)
class OneImage:
    """`redis:7`, or an image by its digest."""

    image: ImageReference


@dataclass(frozen=True, slots=True)
class ByTags:
    """`ghcr.io/acme/app:v*`: those of a repository's tags that the pattern means."""

    repository: Repository
    tags: str


@dataclass(frozen=True, slots=True)
class ByNames:
    """`ghcr.io/acme/*:v*`: of those of a registry's repositories that the pattern `names` means,
    the tags that the pattern `tags` means."""

    registry: str
    names: str
    tags: str


Wanted = OneImage | ByTags | ByNames


def is_pattern(text: str) -> bool:
    return _PATTERN.search(text) is not None


def parse_wanted(text: str, default_registry: str) -> Wanted:
    """Patterns are as in a shell: `*` for anything, `/` included, `?`, `[ab]`. Raises BadRequest,
    whose message says what to write.

    >>> parse_wanted("ghcr.io/acme/app:v*", "docker.io")
    ByTags(repository=Repository(registry='ghcr.io', name='acme/app'), tags='v*')
    >>> parse_wanted("ghcr.io/acme/*", "docker.io")
    ByNames(registry='ghcr.io', names='acme/*', tags='latest')
    """
    if len(text) > _LONGEST or not text.isprintable() or " " in text:
        raise BadRequest(f"{quoted(text)} is no image: write one such as redis:7")
    if not is_pattern(text):
        return OneImage(parse_image(text, default_registry))
    if "@" in text:
        raise BadRequest(f"{quoted(text)}: an image by its digest is one: write it without * and ?")
    name, tags = text, "latest"
    before, colon, after = text.rpartition(":")
    if colon and "/" not in after:
        name, tags = before, after
    if not is_pattern(name):
        return ByTags(parse_image(name, default_registry).repository, tags)
    registry = default_registry
    first, slash, rest = name.partition("/")
    if slash and looks_like_registry(first):
        if is_pattern(first):
            raise BadRequest(f"{quoted(text)}: write the registry without * and ?")
        registry, name = parse_registry(first), rest
    return ByNames(registry, official(registry, name), tags)


def registry_of(wanted: Wanted) -> str:
    match wanted:
        case OneImage():
            return wanted.image.repository.registry
        case ByTags():
            return wanted.repository.registry
        case ByNames():
            return wanted.registry


def matcher(pattern: str) -> re.Pattern[str]:
    """Matches the names, or tags, that this pattern means, in full."""
    return re.compile(translate(pattern))
