"""Which registry answers, and that no other does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Denied
from mirror.oci.reference import Repository
from mirror.policy.routed import Routed

from ..fakes import CONTEXT, FakeRegistry

ASKS = {
    "resolve": ("latest",),
    "manifest": (Digest.of(b"m"),),
    "stat": (Digest.of(b"b"),),
    "blob": (Digest.of(b"b"),),
    "referrers": (Digest.of(b"m"),),
    "tags": (),
}


@pytest.fixture
def registries(tmp_path: Path) -> dict[str, FakeRegistry]:
    made = {}
    for name in ("docker.io", "ghcr.io"):
        (tmp_path / name).mkdir()
        registry = FakeRegistry(tmp_path / name)
        registry.failures = {method: Denied(name) for method in ASKS}  # who was asked says so
        made[name] = registry
    return made


@pytest.mark.parametrize("registry", ["docker.io", "ghcr.io"])
@pytest.mark.parametrize("method", ASKS)
async def test_a_registry_is_asked_by_its_name(
    registries: dict[str, FakeRegistry], method: str, registry: str
) -> None:
    routed = Routed(registries)
    with pytest.raises(Denied) as denied:
        await getattr(routed, method)(CONTEXT, Repository(registry, "acme/app"), *ASKS[method])
    assert denied.value.message == registry


@pytest.mark.parametrize("method", ASKS)
async def test_f64_a_registry_that_is_not_configured_is_refused(
    registries: dict[str, FakeRegistry], method: str
) -> None:
    routed = Routed(registries)
    with pytest.raises(Denied, match=r"'evil\.example' is not served here.*docker\.io, ghcr\.io"):
        await getattr(routed, method)(
            CONTEXT, Repository("evil.example", "acme/app"), *ASKS[method]
        )
    assert not any(registry.asked for registry in registries.values())
