"""What tags pointed to, and pinning them: by the mirror that runs, or in its tag memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ..config import Config, Mistake, digest_or_time, tagged_image
from ..contracts.tags import TagEvent, TagStore, TagStoreError
from ..oci.digest import Digest
from ..oci.reference import ImageReference, Repository, parse_image
from ..pullthrough.tags.pins import event_at, spoken
from ..quantities import moment
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    explained,
    find_mirror,
    give_up,
    load_or_exit,
    log_nothing,
    out,
    print_json,
)

T = TypeVar("T")

_WIDEST = 200  # columns: more than the longest digest and two times need

ImageArgument = Annotated[
    str,
    typer.Argument(metavar="IMAGE", help="As behind docker pull: redis:7, ghcr.io/acme/app:v1."),
]


@explained("tags redis:7", failed="nothing is known of it")
def tags(
    image: ImageArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what a tag pointed to, and since when, as far as this mirror has seen it."""
    loaded = load_or_exit(find_mirror(config).config)
    repository, tag = _tag(image, loaded)

    async def look(store: TagStore) -> tuple[Sequence[TagEvent], Digest | None]:
        return await store.history(repository, tag), await store.frozen(repository, tag)

    events, frozen = _with_tag_memory(loaded, look)
    name = f"{repository}:{tag}"
    configured = _configured(loaded, repository, tag)
    if as_json:
        told = [
            {
                "digest": None if event.digest is None else str(event.digest),
                "first_seen": event.first_seen,
                "last_seen": event.last_seen,
            }
            for event in events
        ]
        pinned = configured if frozen is None else str(frozen)
        print_json({"name": name, "history": told, "pinned": pinned})
    elif events:
        _print_history(name, events)
    if as_json and (events or pinned):
        return
    if frozen is not None:
        out.print(f"{name} is frozen to {frozen}, by command.", markup=False)
    elif configured is not None:
        out.print(f"{name} is frozen to {configured}, by the configuration.", markup=False)
    elif not events:
        raise give_up(f"nothing is known of {name}: no one has pulled it through this mirror")


@explained("pin redis:7 2026-11-01", "pin redis:7", failed="it could not be pinned")
def pin(
    image: ImageArgument,
    to: Annotated[
        str,
        typer.Argument(
            metavar="[DIGEST|DATE]",
            help="sha256:…, 2026-11-01 or 2026-11-01T12:30Z. Without one, what it is here.",
            show_default=False,
        ),
    ] = "",
    config: ConfigOption = None,
) -> None:
    """Freeze a tag: to a digest, to what it was at a date, or to what it is. It holds at once, on
    all workers and nodes, until `unpin`; what it points to is never evicted here.

    storage.pin of the configuration is another thing: an image is kept, and its tag moves on."""
    words = {"image": image, "to": to}
    pinned = _through_the_mirror(config, "pin", words)
    if pinned is None:
        pinned = _pinned_by_memory(image, to, load_or_exit(find_mirror(config).config))
    out.print(f"{pinned['name']} is frozen to {pinned['digest']}.", markup=False)


@explained("unpin redis:7", failed="it was not pinned, or still is")
def unpin(image: ImageArgument, config: ConfigOption = None) -> None:
    """Let a tag that `pin` has frozen follow its registry again; it may be evicted again."""
    unpinned = _through_the_mirror(config, "unpin", {"image": image})
    if unpinned is None:
        name = _unpinned_by_memory(image, load_or_exit(find_mirror(config).config))
        unpinned = {"name": name}
    out.print(f"{unpinned['name']} follows its registry again.", markup=False)


def _through_the_mirror(
    config: Path | None, command: str, words: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """What the mirror that runs answers; None: there is none."""
    from ..app import NotAnswered, ask

    try:
        return asyncio.run(ask(find_mirror(config).store, command, **words))
    except NotAnswered as error:
        if error.is_running:
            raise give_up(str(error), error.status) from None
        return None


def _pinned_by_memory(image: str, to: str, loaded: Config) -> Mapping[str, Any]:
    repository, tag = _tag(image, loaded)
    wanted: Digest | datetime | None = None
    try:
        wanted = digest_or_time(to) if to else None
    except Mistake as mistake:
        raise give_up(f"DIGEST|DATE: {mistake}", CONFIGURATION_WRONG) from None
    if isinstance(wanted, datetime) and wanted > datetime.now(UTC):
        raise give_up(f"DIGEST|DATE: {spoken(wanted)} is yet to come", CONFIGURATION_WRONG)

    async def freeze(store: TagStore) -> Digest:
        digest = wanted
        if digest is None:
            record = await store.get(repository, tag)
            if record is None or record.descriptor is None:
                what = f"what {repository}:{tag} points to is not known"
                raise give_up(f"{what}: write a digest or a date behind it")
            digest = record.descriptor.digest
        elif isinstance(digest, datetime):
            digest = _what_it_was(repository, tag, await store.history(repository, tag), digest)
        await store.freeze(repository, tag, digest)
        return digest

    digest = _with_tag_memory(loaded, freeze)
    return {"name": f"{repository}:{tag}", "digest": str(digest)}


def _unpinned_by_memory(image: str, loaded: Config) -> str:
    repository, tag = _tag(image, loaded)
    was_frozen = _with_tag_memory(loaded, lambda store: store.unfreeze(repository, tag))
    configured = _configured(loaded, repository, tag)
    name = f"{repository}:{tag}"
    if configured is not None:
        raise give_up(
            f"{name} is still frozen to {configured}, by the configuration: see pin there"
        )
    if not was_frozen:
        raise give_up(f"{name} was not frozen")
    return name


def _print_history(name: str, events: Sequence[TagEvent]) -> None:
    table = Table("pointed to", "first seen", "last seen", title=name, title_justify="left")
    for event in events:
        said = "nothing: it was gone" if event.digest is None else str(event.digest)
        table.add_row(said, moment(event.first_seen), moment(event.last_seen))
    # Whole digests, however narrow the terminal: they are there to be copied.
    Console(highlight=False, width=_WIDEST, emoji=False).print(table, crop=False)


def _what_it_was(
    repository: Repository, tag: str, events: Sequence[TagEvent], at: datetime
) -> Digest:
    event = event_at(events, at)
    name = f"{repository}:{tag}"
    if event is None:
        known = f"it is first known at {moment(events[-1].first_seen)}" if events else "nothing is"
        raise give_up(f"what {name} was at {spoken(at)} is not known: {known}")
    if event.digest is None:
        raise give_up(f"there was no {name} at {spoken(at)}")
    return event.digest


def _tag(given: str, config: Config) -> tuple[Repository, str]:
    """What is meant by IMAGE, which is to have a tag and be of a registry that is mirrored."""
    try:
        image = parse_image(tagged_image(given), config.default_registry)
    except Mistake as mistake:
        raise give_up(f"IMAGE: {mistake}", CONFIGURATION_WRONG) from None
    registry = image.repository.registry
    if registry not in config.registries and not config.allow_any_registry:
        names = ", ".join(sorted(config.registries))
        raise give_up(f"IMAGE: {registry} is not mirrored; {names} is", CONFIGURATION_WRONG)
    return image.repository, str(image.reference)


def _configured(config: Config, repository: Repository, tag: str) -> str | None:
    """What the configuration freezes this tag to, in words."""
    image = ImageReference(repository, tag)
    for given, to in config.pin.items():
        if parse_image(given, config.default_registry) == image:
            return f"what it was at {spoken(to)}" if isinstance(to, datetime) else str(to)
    return None


def _with_tag_memory(config: Config, work: Callable[[TagStore], Awaitable[T]]) -> T:
    from ..app import CannotStart, tag_memory

    log_nothing()

    async def run() -> T:
        async with tag_memory(config) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except CannotStart as error:
        raise give_up(str(error)) from None
    except TagStoreError as error:
        raise give_up(f"the tag memory does not answer: {error}") from None
