"""Which images a line of the configuration means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from .reference import Repository
from .registries import DOCKER_HUB, is_registry, looks_like_registry, official, parse_registry


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


def _registry_and_name(pattern: str) -> tuple[str | None, str]:
    """The registry that a pattern begins with, which may be a pattern itself; and what follows."""
    first, slash, rest = pattern.partition("/")
    if not slash or not looks_like_registry(first):
        return None, pattern
    return parse_registry(first) if is_registry(first) else first, rest


def _compiled(pattern: str) -> re.Pattern[str]:
    name = pattern.rpartition("/")[2]
    return re.compile(translate(pattern if ":" in name else f"{pattern}:*"))
