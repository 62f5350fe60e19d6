"""One registry for all of these tests, and a repository for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .registry import HostedMirror, Registry, Repository, started


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    mirror = HostedMirror(tmp_path_factory.mktemp("registry"), {})
    yield started(mirror)
    mirror.kill()
    mirror.wrote_well()


@pytest.fixture
def repository(registry: Registry) -> Repository:
    return registry.new_repository()
