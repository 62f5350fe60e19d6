"""The store that a configuration describes: for the service, and for commands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.app.resources import CannotStart, Process, holding_store, store_beside
from mirror.config import Config, parse
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds

MIB = 1 << 20


def configured(path: Path, more: str = "") -> Config:
    return parse(f"storage:\n  path: {path}\n{more}", "test")


async def bounds(config: Config) -> Bounds:
    """Those that a command keeps to."""
    async with store_beside(config, of(config)) as store:
        return store.space.bounds


def of(config: Config) -> Process:
    return Process(set(config.registries))


async def test_a_command_keeps_to_what_the_service_was_told(tmp_path: Path) -> None:
    service = configured(tmp_path, "  max_size: 2GiB\n  min_free: 1MiB\n")
    command = configured(tmp_path, "  max_size: 20MiB\n")
    async with holding_store(service, of(service)):
        assert await bounds(command) == Bounds(2 << 30, MIB)
    assert await bounds(command) == Bounds(2 << 30, MIB)  # as it was told last


async def test_a_command_evicts_nothing_where_nobody_has_said_how_much_may_be_kept(
    tmp_path: Path,
) -> None:
    found = await bounds(configured(tmp_path))
    assert not found.evicts
    assert found.max_size > 1 << 60
    assert (await bounds(configured(tmp_path, "  max_size: 20MiB\n"))).max_size == 20 * MIB


async def test_a_note_that_is_none_is_passed_over(tmp_path: Path) -> None:
    for note in ("", "{", "[]", '{"max_size": "much"}'):
        (tmp_path / "service.json").write_text(note)
        assert (await bounds(configured(tmp_path, "  max_size: 20MiB\n"))).max_size == 20 * MIB


async def test_a_store_has_one_service(tmp_path: Path) -> None:
    config = configured(tmp_path)
    async with holding_store(config, of(config)):
        with pytest.raises(CannotStart, match="served by another mirror already"):
            async with holding_store(config, of(config)):
                pass
        await bounds(config)  # which gives the lock of this process back to nobody
        with pytest.raises(CannotStart, match="served by another mirror already"):
            async with holding_store(config, of(config)):
                pass
    async with holding_store(config, of(config)):
        pass


async def test_registries_that_clients_name_are_guests(tmp_path: Path) -> None:
    config = configured(tmp_path, "  max_size: 1MiB\n")
    async with holding_store(config, of(config)) as store:
        for source in ("docker.io", "registry.example.com"):
            data = source.encode()
            await store.put(Digest.of(data), data, source=source)
        partial = await store.partial(Digest.of(b"layer"), "other.example.com")
        assert partial is not None
        await partial.append([b"layer"])
        await partial.commit()
        block = store.async_index.index.block
        assert store.async_index.index.guests() == 2 * block
        assert store.usage().content_bytes == 3 * block
