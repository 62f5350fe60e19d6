"""Repositories of one's own in front of a registry that is mirrored."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, NameUnknown, Unauthorized
from mirror.oci.reference import Repository
from mirror.policy.hosted_first import HostedFirst, Unchallenged

from ..fakes import CONTEXT, FakeRegistry
from .test_routed import ASKS


@pytest.fixture
def readers(tmp_path: Path) -> tuple[FakeRegistry, FakeRegistry]:
    made = []
    for name in ("hosted", "mirrored"):
        (tmp_path / name).mkdir()
        registry = FakeRegistry(tmp_path / name)
        registry.failures = {method: NameUnknown(name) for method in ASKS}  # says who was asked
        made.append(registry)
    return made[0], made[1]


async def is_hosted(name: str) -> bool:
    return name == "team/app"


@pytest.mark.parametrize("method", ASKS)
@pytest.mark.parametrize(("name", "who"), [("team/app", "hosted"), ("team/other", "mirrored")])
async def test_a_repository_is_wholly_the_one_or_the_other(
    readers: tuple[FakeRegistry, FakeRegistry], method: str, name: str, who: str
) -> None:
    both = HostedFirst(readers[0], is_hosted, readers[1])
    with pytest.raises(NameUnknown, match=f"^{who}$"):
        await getattr(both, method)(CONTEXT, Repository("corp.lan", name), *ASKS[method])


@pytest.mark.parametrize("method", ASKS)
async def test_a_mirror_challenges_nobody(
    readers: tuple[FakeRegistry, FakeRegistry], method: str
) -> None:
    hosted, _ = readers
    hosted.failures = {each: Unauthorized("log in") for each in ASKS}
    with pytest.raises(Denied, match="docker login"):
        await getattr(Unchallenged(hosted), method)(
            CONTEXT, Repository("corp.lan", "team/app"), *ASKS[method]
        )


async def test_what_is_no_challenge_passes(
    readers: tuple[FakeRegistry, FakeRegistry],
) -> None:
    with pytest.raises(NameUnknown):
        await Unchallenged(readers[0]).stat(
            CONTEXT, Repository("corp.lan", "team/app"), Digest.of(b"b")
        )
