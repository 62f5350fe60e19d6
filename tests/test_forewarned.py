"""What `check` says of a configuration that is good, and would do what nobody may have meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.app import forewarned
from mirror.app.forewarned import certificate_trouble, certificates_of
from mirror.clock import Clock
from mirror.config import Config, parse
from mirror.events import Events
from mirror.oci.digest import Digest
from mirror.storage.disk.space import Bounds
from mirror.storage.disk.store import DiskContent

from .test_config_ports import write_pair

DAY = 86400.0


def config_of(folder: Path, max_size: str, more: str = "") -> Config:
    return parse(f"storage: {{path: '{folder}', max_size: {max_size}}}\n{more}", "mirror.yaml")


async def test_a_limit_below_what_is_cached_is_said_with_how_much_would_go(tmp_path: Path) -> None:
    store = DiskContent(
        tmp_path / "store", Bounds(1 << 30, 0), sync=False, clock=Clock(), events=Events(),
        is_guest=lambda source: False,
    )  # fmt: skip
    for _ in range(3):
        data = os.urandom(1 << 20)
        await store.put(Digest.of(data), data, "docker.io")
    [words] = forewarned(config_of(tmp_path / "store", "1MiB"))
    assert words.startswith("storage.max_size: 1 MiB")
    assert "would evict 2.0 of 3.0 MiB" in words
    assert not list(forewarned(config_of(tmp_path / "store", "4MiB")))
    await store.close()
    [words] = forewarned(config_of(tmp_path / "store", "2MiB"))
    assert "would evict 1.0 of 3.0 MiB" in words


def test_where_no_store_is_yet_nothing_is_said_and_none_is_made(tmp_path: Path) -> None:
    assert not list(forewarned(config_of(tmp_path / "none", "1MiB")))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("days", "said"), [(-1, "has expired"), (10, "ends at"), (30, None)])
def test_the_end_of_a_certificate_is_said_in_time(
    tmp_path: Path, days: int, said: str | None
) -> None:
    config = config_of(tmp_path / "none", "1MiB", write_pair(tmp_path, days=30))
    now = Clock().wall() + (30 - days) * DAY
    [(key, tls)] = certificates_of(config).items()
    words = certificate_trouble(key, tls, now)
    assert (said is None) == (words is None)
    assert said is None or (said in str(words) and "m.pem" in str(words))
