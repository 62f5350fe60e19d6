"""Which images a line of the configuration means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from .errors import BadRequest, quoted
from .reference import ImageReference, Repository, parse_image
from .registries import DOCKER_HUB, is_registry, looks_like_registry, official, parse_registry

_LONGEST = 512
"""Characters of what somebody types: to compile a pattern takes the square of its length."""


class Patterns:
    """Shell-like patterns of images: `library/redis:7`, `library/*:latest`, `ghcr.io/acme/*`.

    `*` stands for anything, `/` included; `?` for one character, `[ab]` for one of these. Without
    a tag, all tags. As in image names everywhere, a first component with a dot or a colon is a
    registry, in any spelling: `ghcr.io/acme/*` is never a repository of that name elsewhere.
    Without one, any registry: but `*/app` may begin in the registry's name too. And `redis` is
    Docker Hub's `library/redis`, too.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._named: list[re.Pattern[str]] = []
        self._anywhere: list[re.Pattern[str]] = []
        for pattern in patterns:
            registry, name = _registry_and_name(pattern)
            if registry is None:
                self._named.append(_compiled(name))
                self._anywhere.append(_compiled(name))
            else:
                self._named.append(_compiled(f"{registry}/{name}"))
            if registry in (None, DOCKER_HUB):
                of_hub = official(DOCKER_HUB, name)
                if of_hub != name:
                    self._named.append(_compiled(f"{DOCKER_HUB}/{of_hub}"))

    def match(self, repository: Repository, tag: str = "") -> bool:
        """Whether any pattern means this image; with no tag, the repository with all its tags."""
        full, name = f"{repository}:{tag}", f"{repository.name}:{tag}"
        return any(pattern.match(full) for pattern in self._named) or any(
            pattern.match(name) for pattern in self._anywhere
        )


class ImagePattern:
    """Which of the images that are here somebody means. A name without `*`, `?` or `[` is one as
    behind `docker pull`, without a tag all images of that repository; else it is one of Patterns.
    Raises BadRequest.

    >>> pattern = ImagePattern("redis:7", "docker.io")
    >>> pattern.match(parse_image("docker.io/library/redis:7", "docker.io"))
    True
    """

    def __init__(self, text: str, default_registry: str) -> None:
        self.text = text
        self.image: ImageReference | None = None
        """The only one that it means."""
        self._repository: Repository | None = None
        self._patterns = Patterns(())
        if any(sign in text for sign in "*?["):
            if len(text) > _LONGEST:
                raise BadRequest(f"a pattern has {_LONGEST} characters at most: {quoted(text)}")
            self._patterns = Patterns((text,))
            return
        image = parse_image(text, default_registry)
        if "@" in text or ":" in text.rpartition("/")[2]:
            self.image = image
        else:
            self._repository = image.repository

    def match(self, image: ImageReference) -> bool:
        if self.image is not None:
            return image == self.image
        if self._repository is not None:
            return image.repository == self._repository
        tag = image.reference if isinstance(image.reference, str) else ""
        return self._patterns.match(image.repository, tag)


def _registry_and_name(pattern: str) -> tuple[str | None, str]:
    """The registry that a pattern begins with, which may be a pattern itself; and what follows."""
    first, slash, rest = pattern.partition("/")
    if not slash or not looks_like_registry(first):
        return None, pattern
    return parse_registry(first) if is_registry(first) else first, rest


def _compiled(pattern: str) -> re.Pattern[str]:
    name = pattern.rpartition("/")[2]
    return re.compile(translate(pattern if ":" in name else f"{pattern}:*"))
