"""Whether the configuration is good, and, where that is asked, whether the registries are there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..config import Config
from ..oci.errors import BadRequest, Denied
from ..oci.reference import ImageReference, parse_image
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    err,
    explained,
    find_mirror,
    give_up,
    load_or_exit,
    log_nothing,
    out,
)
from .welcome import hosted_at

if TYPE_CHECKING:
    from ..app.checking import Checked

FAILED = 1

_STYLES = {"ok": "green", "note": "yellow", "FAIL": "bold red"}

OnlineOption = Annotated[
    bool,
    typer.Option("--online", help="Ask each endpoint, and tell at which step it fails."),
]
ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[IMAGE…]", help="With --online: asked of its registry by a HEAD."),
]


@explained("check --config mirror.yaml", "check --online redis:7", failed="an endpoint failed")
def check(
    images: ImagesArgument = None, online: OnlineOption = False, config: ConfigOption = None
) -> None:
    """Read the configuration, tell every mistake in it, and which of its logins the registries
    have refused to the mirror that serves. With --online, ask every endpoint as the mirror does,
    the Redis of tags.store, the PostgreSQL of hosted.records, the fleet's nodes and the bucket of
    storage.s3, where an object of no meaning is written and removed (exit 1 if one fails)."""
    config = find_mirror(config).config
    loaded = load_or_exit(config)
    names = ", ".join(sorted(loaded.registries))
    wanted = _read(images or [], loaded)
    if wanted and not online:
        raise give_up("IMAGE is for --online: nobody is asked without it", CONFIGURATION_WRONG)
    hosts = "" if loaded.hosted is None else f" Hosts repositories at {hosted_at(loaded.hosted)}."
    listening = ", ".join(map(str, loaded.listen))
    by = "" if loaded.workers == 1 else f" by {loaded.workers} workers"
    out.print(f"{config or 'the defaults'}: good. Serves {names} on {listening}{by}.{hosts}")
    _forewarn(loaded)
    if online:
        _ask(loaded, wanted)
    else:
        _tell_refusals(loaded)


def _forewarn(config: Config) -> None:
    from ..app import forewarned

    for words in forewarned(config):
        err.print(f"warning: {words}", markup=False)


def _tell_refusals(config: Config) -> None:
    from ..app import refusals
    from ..app.doctor.findings import Mark
    from ..app.doctor.host import room

    for found in room(config, None):
        if found.mark is Mark.BAD:
            err.print(f"storage: {found.words}", markup=False)
    for name in sorted(config.registries):
        for words in refusals(config, name):
            err.print(f"{name}: {words}", markup=False)


def _read(texts: Sequence[str], config: Config) -> Sequence[ImageReference]:
    try:
        images = [parse_image(text, config.default_registry) for text in texts]
    except BadRequest as error:
        raise give_up(f"IMAGE: {error.message}", CONFIGURATION_WRONG) from None
    for image in images:
        registry = image.repository.registry
        if registry not in config.registries and not config.allow_any_registry:
            names = ", ".join(sorted(config.registries))
            raise give_up(f"IMAGE: {registry} is not mirrored; {names} is", CONFIGURATION_WRONG)
    return images


def _ask(config: Config, images: Sequence[ImageReference]) -> None:
    log_nothing()
    if config.offline:
        out.print("offline: true. The mirror asks no registry, and none was asked.")
        return
    try:
        bad, count, failed = asyncio.run(_ask_each(config, images))
    except Denied as error:
        raise give_up(f"IMAGE: {error.message}", CONFIGURATION_WRONG) from None
    for what in failed:
        out.print(f"\nThe {what} failed.")
    if bad:
        out.print(f"\n{bad} of {count} endpoints failed.")
    if bad or failed:
        raise typer.Exit(FAILED)
    out.print(f"\n{'The endpoint is' if count == 1 else f'All {count} endpoints are'} good.")


async def _ask_each(
    config: Config, images: Sequence[ImageReference]
) -> tuple[int, int, Collection[str]]:
    """How many of the endpoints failed, and how many there are; what else of what several nodes
    share did."""
    from ..app import checked_endpoints
    from ..app.doctor.findings import Mark
    from ..app.doctor.network import behind_the_disk, fleet, records, tags

    count = bad = 0
    failed: dict[str, None] = {}
    with err.status("asking …"):
        async for checked in checked_endpoints(config, images):
            count += 1
            bad += not checked.is_good
            _print(checked)
        looks = (
            ("tag memory", tags(config)),
            ("records", records(config)),
            ("fleet", fleet(config)),
            ("bucket", behind_the_disk(config)),
        )
        for what, look in looks:
            async for found in look:
                if found.mark is Mark.BAD:
                    failed[what] = None
                mark = {Mark.GOOD: "ok", Mark.WARN: "note", Mark.BAD: "FAIL"}[found.mark]
                told = Text(f"\n  {mark:<6}", style=_STYLES[mark])
                words = f"{found.words}; {found.mend}" if found.mend else found.words
                out.print(told + Text(f"{found.subject:<11} {words}"))
    return bad, count, failed


def _print(checked: Checked) -> None:
    endpoint = checked.endpoint
    of = "" if endpoint.trust == "tags" else f" (trust: {endpoint.trust})"
    out.print(Text(f"\n{endpoint.registry}: {endpoint.url}{of}", style="bold"))
    for finding in checked.findings:
        mark = Text(f"  {finding.mark:<6}", style=_STYLES[finding.mark])
        out.print(mark + Text(f"{finding.step:<12}{finding.words}"))
