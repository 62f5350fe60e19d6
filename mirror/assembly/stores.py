"""Where a configured mirror keeps its bytes and records."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from ..config import Config
from ..interfaces import Clock, Meter, NoMeter, TagStore
from ..storage.disk import DiskContent, StorageUnusable
from ..storage.room import Bounds
from ..storage.tags_embedded import EmbeddedTags

_TAGS = "tags.db"


class CannotStart(Exception):
    """What the configuration names cannot be had here; the message says what to do."""


def open_store(config: Config, meter: Meter, clock: Clock) -> DiskContent:
    """The configured store. Raises CannotStart."""
    try:
        return DiskContent(
            config.storage.path,
            Bounds(config.storage.max_size, config.storage.min_free),
            sync=config.storage.durability == "full",
            clock=clock,
            meter=meter,
            is_guest=lambda source: source not in config.registries,
        )
    except StorageUnusable as error:
        raise CannotStart(str(error)) from error


def tag_store(config: Config, clock: Clock, meter: Meter) -> TagStore:
    """The configured tag memory."""
    if config.tags.store is None:
        return EmbeddedTags.open(config.storage.path / _TAGS, clock, meter)
    # Not before it is needed: what it is made of takes 5 MB and a tenth of the time to start.
    from ..storage.tags_redis import RedisTags

    password = config.tags.password
    return RedisTags(
        config.tags.store.get_secret_value(),
        password.get_secret_value() if password else None,
        meter,
        clock,
        ca_file=config.tags.ca_file,
    )


@contextlib.asynccontextmanager
async def tag_memory(config: Config) -> AsyncIterator[TagStore]:
    """The tag memory of a mirror that may be serving meanwhile. Raises CannotStart where there is
    none to share."""
    path = config.storage.path / _TAGS
    if config.tags.store is None and not path.exists():
        # Not made here: this user may not be the one who runs the mirror.
        raise CannotStart(f"there is no {path}: a mirror makes it when it first serves from there")
    store = tag_store(config, Clock(), NoMeter())
    try:
        if isinstance(store, EmbeddedTags) and not store.is_shared:
            raise CannotStart(f"{path} cannot be opened; try as the user who runs the mirror")
        yield store
    finally:
        await store.close()
