"""Where a configured mirror keeps its bytes and records."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator

import structlog

from ..clock import Clock
from ..config import Config
from ..contracts.tags import TagStore
from ..events import Events
from ..pullthrough.second_tier import TierKeeper, TierState
from ..storage.disk.service import bounds_of, serving
from ..storage.disk.space import Bounds
from ..storage.disk.store import DiskContent, StorageUnusable
from ..storage.second_tier.folder import FolderTier
from ..storage.tags.embedded import EmbeddedTags

log = structlog.get_logger()

_TAGS = "tags.db"
_ANY = 1 << 62  # bytes


class CannotStart(Exception):
    """What the configuration names cannot be had here; the message says what to do."""


def open_store(config: Config, events: Events, clock: Clock) -> DiskContent:
    """The configured store, for the service that serves it. Raises CannotStart."""
    return _opened(config, bounds_in(config), events, clock)


@contextlib.asynccontextmanager
async def holding_store(config: Config, events: Events, clock: Clock) -> AsyncIterator[DiskContent]:
    """As `open_store`, for the one process of a service that holds the store's lock; says what the
    store lacks. Raises CannotStart, also when another service has it."""
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(config, events, clock)
        stack.push_async_callback(store.close)
        try:
            stack.enter_context(serving(store.root, store.room.bounds))
            for lack in store.room.misfits():
                log.error("storage_is_short_of_room", path=str(store.root), reason=lack)
        except StorageUnusable as error:
            raise CannotStart(str(error)) from error
        yield store


def open_beside(config: Config, events: Events, clock: Clock) -> DiskContent:
    """The configured store, for a command. What may be in it is for the service to say that serves
    it, or did last: not for this configuration, which may be another's. Raises CannotStart."""
    bounds = bounds_of(config.storage.path)
    if bounds is None:
        bounds = bounds_in(config)
        if "max_size" not in config.storage.model_fields_set:  # nobody has said how much may be
            bounds = dataclasses.replace(bounds, max_size=_ANY, evicts=False)
    return _opened(config, bounds, events, clock)


def bounds_in(config: Config) -> Bounds:
    return Bounds(config.storage.max_size, config.storage.min_free)


def _opened(config: Config, bounds: Bounds, events: Events, clock: Clock) -> DiskContent:
    try:
        return DiskContent(
            config.storage.path,
            bounds,
            sync=config.storage.durability == "full",
            clock=clock,
            events=events,
            is_guest=lambda source: source not in config.registries,
        )
    except StorageUnusable as error:
        raise CannotStart(str(error)) from error


def tag_store(config: Config, clock: Clock, events: Events) -> TagStore:
    """The configured tag memory."""
    if config.tags.store is None:
        return EmbeddedTags.open(config.storage.path / _TAGS, clock, events)
    # Not before it is needed: what it is made of takes 5 MB and a tenth of the time to start.
    from ..storage.tags.redis import RedisTags

    password = config.tags.password
    return RedisTags(
        config.tags.store.get_secret_value(),
        password.get_secret_value() if password else None,
        events,
        clock,
        ca_file=config.tags.ca_file,
    )


def second_tier(
    stack: contextlib.AsyncExitStack,
    config: Config,
    store: DiskContent,
    events: Events,
    clock: Clock,
) -> TierState | None:
    """What is behind the store, if anything, and what gives it the content of the configured
    registries; closed with the stack."""
    if config.storage.second_tier is None:
        return None
    tier = FolderTier(config.storage.second_tier)
    stack.push_async_callback(tier.close)
    state = TierState(tier, events, clock)
    stack.push_async_callback(TierKeeper(state, store, config.registries.keys()).close)
    return state


@contextlib.asynccontextmanager
async def tag_memory(config: Config) -> AsyncIterator[TagStore]:
    """The tag memory of a mirror that may be serving meanwhile. Raises CannotStart where there is
    none to share."""
    path = config.storage.path / _TAGS
    if config.tags.store is None and not path.exists():
        # Not made here: this user may not be the one who runs the mirror.
        raise CannotStart(f"there is no {path}: a mirror makes it when it first serves from there")
    store = tag_store(config, Clock(), Events())
    try:
        if isinstance(store, EmbeddedTags) and store.fault is not None:
            reason = getattr(store.fault, "strerror", None) or str(store.fault)
            is_others = path.exists() and path.stat().st_uid != os.geteuid()
            advice = "; try as the user who runs the mirror" if is_others else ""
            raise CannotStart(f"{path} cannot be opened to be written to ({reason}){advice}")
        yield store
    finally:
        await store.close()
