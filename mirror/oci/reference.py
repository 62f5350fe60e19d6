"""Names and tags by the grammar of the OCI distribution-spec ("Pulling manifests")."""

from __future__ import annotations

import re

from ..frozen import dataclass
from .digest import Digest
from .errors import NameInvalid, TagInvalid
from .registries import DOCKER_HUB, looks_like_registry, official, parse_registry, short_name

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# Not of the grammar, but of the specification's advice: clients refuse longer ones.
MAX_NAME = 255


def is_name(text: str) -> bool:
    """Whether this is a repository's name."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def parse_name(text: str) -> str:
    """A repository's name, unchanged. Raises NameInvalid."""
    if not is_name(text):
        raise NameInvalid(text)
    return text


def namespace_of(name: str) -> str:
    """The first part of a repository's name: whose it is, where a registry has owners."""
    return name.partition("/")[0]


def parse_tag(text: str) -> str:
    """A tag, unchanged. Raises TagInvalid."""
    if not _TAG.fullmatch(text):
        raise TagInvalid(text)
    return text


def parse_reference(text: str) -> Digest | str:
    """What stands behind `/manifests/`: a digest (it has a colon, no tag has) or a tag.

    Raises DigestInvalid or TagInvalid.
    """
    return Digest.parse(text) if ":" in text else parse_tag(text)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where an image lives: `registry` as the configuration names it, `name` as the upstream does.

    `name` always fits the grammar, however the Repository was made (the constructor raises
    NameInvalid): it may go into a URL or a key as it is. `registry` is for the configuration to
    vouch for.

    >>> str(Repository("docker.io", "library/redis"))
    'docker.io/library/redis'
    """

    registry: str
    name: str

    def __post_init__(self) -> None:
        parse_name(self.name)

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as people write it: what is meant by `redis:7`.

    `reference` is a tag, or a digest.
    """

    repository: Repository
    reference: Digest | str

    def __str__(self) -> str:
        return f"{self.repository}{self._end}"

    @property
    def familiar(self) -> str:
        """As people write it: `redis:7`. Docker reads it as the whole name.

        >>> ImageReference(Repository("docker.io", "library/redis"), "7").familiar
        'redis:7'
        """
        registry, name = self.repository.registry, self.repository.name
        if registry != DOCKER_HUB:
            return str(self)
        return f"{short_name(registry, name)}{self._end}"

    @property
    def _end(self) -> str:
        return f"{':' if isinstance(self.reference, str) else '@'}{self.reference}"


def parse_image(text: str, default_registry: str) -> ImageReference:
    """Reads what stands behind `docker pull`: `[registry/]name[:tag][@digest]`.

    Without a registry it is `default_registry`; without a tag, `latest`; Docker Hub's images of
    one component are below `library/`. A digest goes before a tag, as with Docker. Raises
    RegistryInvalid, NameInvalid, TagInvalid or DigestInvalid, whose messages say what to write.

    >>> str(parse_image("redis", "docker.io"))
    'docker.io/library/redis:latest'
    >>> str(parse_image("localhost:5000/app:v1", "docker.io"))
    'localhost:5000/app:v1'
    """
    name, at, digest = text.partition("@")
    tag = "latest"
    before, colon, after = name.rpartition(":")
    if colon and "/" not in after:
        name, tag = before, parse_tag(after)
    registry = default_registry
    first, slash, rest = name.partition("/")
    if slash and looks_like_registry(first):
        registry, name = parse_registry(first), rest
    repository = Repository(registry, official(registry, name))
    return ImageReference(repository, Digest.parse(digest) if at else tag)
