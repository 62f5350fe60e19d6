"""Guards fail closed: what a guard does not let through is denied, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.contracts.context import RequestContext
from mirror.contracts.registry import CONTRACTS, Deleter, Lister, Reader, Writer
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied
from mirror.oci.reference import Repository
from mirror.policy.access import AccessGuard
from mirror.policy.forwarding import METHODS, Guarding
from mirror.policy.unconfigured import UnconfiguredGuard
from mirror.policy.visibility import RepositoryVisibility

from ..fakes import CONTEXT, REDIS, FakeRegistry

GUARDS = (AccessGuard, RepositoryVisibility, UnconfiguredGuard)
READS = {"resolve", "manifest", "stat", "blob", "referrers", "tags"}
ANY = Digest.of(b"any")


class Shut(Guarding):
    """Admits everything, and has said of no method that it lets it through."""

    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        """Whatever it is."""


class TagsOnly(Shut):
    lets_through = frozenset({"tags"})

    async def admit(self, context: RequestContext, repository: Repository, method: str) -> None:
        if repository.name.startswith("secret/"):
            raise Denied("secret")


class Hosted(FakeRegistry):
    """A registry that can be written to, too: it notes what gets through to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written: list[str] = []

    async def put_manifest(self, *_: object) -> None:
        self.written.append("put_manifest")


def arguments(method: str) -> list[object]:
    """What may be given for the method's parameters, without its context."""
    of = next(vars(each)[method] for each in CONTRACTS if method in vars(each))
    count = of.__code__.co_argcount - 2 - len(of.__defaults__ or ())
    return [REDIS, ANY, *[b""] * count][:count]


def test_the_contracts_have_methods() -> None:
    assert READS | {"begin_upload", "put_manifest", "delete_blob", "repositories"} <= METHODS
    for contract in (Reader, Writer, Deleter, Lister):
        assert METHODS & vars(contract).keys(), contract


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_a_guard_that_says_nothing_of_a_method_denies_it(tmp_path: Path, method: str) -> None:
    registry = Hosted(tmp_path)
    with pytest.raises(Denied, match=method):
        await getattr(Shut(registry), method)(CONTEXT, *arguments(method))
    assert (registry.asked, registry.written) == ([], [])


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", GUARDS, ids=lambda kind: kind.__name__)
async def test_each_guard_of_the_mirror_denies_what_it_does_not_know(
    kind: type[Guarding], method: str
) -> None:
    if method in kind.lets_through or method in vars(kind):
        assert method in READS  # nothing of a mirror is written, deleted or listed
        return
    guard = kind.__new__(kind)  # whatever it stands in front of
    with pytest.raises(Denied, match=method):
        await getattr(guard, method)(CONTEXT, *arguments(method))


@pytest.mark.parametrize("kind", GUARDS, ids=lambda kind: kind.__name__)
def test_what_a_guard_lets_through_is_of_the_contracts(kind: type[Guarding]) -> None:
    assert kind.lets_through <= METHODS


async def test_what_a_guard_lets_through_is_asked_once_it_is_admitted(tmp_path: Path) -> None:
    registry = FakeRegistry(tmp_path)
    registry.add_manifest(b"{}", "7")
    guard = TagsOnly(registry)
    assert (await guard.tags(CONTEXT, REDIS)).tags == ["7"]
    with pytest.raises(Denied, match="secret"):
        await guard.tags(CONTEXT, Repository("docker.io", "secret/app"))
    with pytest.raises(Denied, match="manifest"):
        await guard.manifest(CONTEXT, REDIS, ANY)
    assert [method for method, *_ in registry.asked] == ["tags"]


def test_what_is_no_method_of_the_contracts_is_no_attribute_of_a_guard(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="resolves"):
        getattr(Shut(FakeRegistry(tmp_path)), "resolves")  # noqa: B009
