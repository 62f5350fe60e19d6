"""In which order a mirror is looked at, by whom, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from ...config import Config, ConfigError, following, load_again
from ...contracts.content import Usage
from ...oci.errors import RegistryError
from ...oci.reference import ImageReference, parse_image
from ...oci.registries import is_registry, parse_registry
from ...server.control import Command, CommandFailed, Parameters, Tells
from ...threads import Threads
from . import network
from .findings import Diagnosis, Mark, bad, good, warn
from .host import host

T = TypeVar("T")

log = structlog.get_logger()

_START = 2.0  # seconds after the start: the first pulls have the processor to themselves
_AT_START_WITHIN = 30.0  # seconds, all of it
_HOST_WITHIN = 10.0  # seconds
_MOST_TOLD = 20  # lines of the log


def commands(
    config: Callable[[], Config], usage: Callable[[], Usage], path: str | None
) -> Mapping[str, Command]:
    """The command doctor: what the mirror that runs has of its host, as its own user sees it.
    `path`: where its configuration is, None for the defaults."""

    async def run(parameters: Parameters) -> AsyncGenerator[Mapping[str, object], None]:
        subject = parameters.get("subject")
        if subject is not None and not isinstance(subject, str):
            raise CommandFailed("subject is no text", 2)
        if subject is None and path is not None:
            yield (await _on_its_own(lambda: since_loaded(config(), Path(path)))).as_json()
        async for found in examined(config(), subject, usage()):
            yield found.as_json()

    return {"doctor": Tells(run)}


async def examined(
    config: Config, subject: str | None, usage: Usage | None
) -> AsyncGenerator[Diagnosis, None]:
    """All that this process can see. `subject`: a registry or an image, which is then looked at
    step by step, and nothing else. Raises CommandFailed for one that is neither."""
    names, images = _meant(config, subject)
    if subject is None:
        for found in await _of_host(config, usage):
            yield found
        async for found in network.tags(config):
            yield found
        async for found in network.records(config):
            yield found
        async for found in network.fleet(config):
            yield found
        async for found in network.behind_the_disk(config):
            yield found
    async for found in network.logins(config, names):
        yield found
    try:
        async for found in network.endpoints(config, names, images, whole=subject is not None):
            yield found
    except RegistryError as error:
        raise CommandFailed(error.message, 2) from None


async def _of_host(config: Config, usage: Usage | None) -> Sequence[Diagnosis]:
    return await _on_its_own(lambda: list(host(config, usage)))


async def _on_its_own(look: Callable[[], T]) -> T:
    """On a thread of its own: a share that is gone may hold it. Raises CommandFailed then."""
    threads = Threads(1, "doctor")
    try:
        async with asyncio.timeout(_HOST_WITHIN):
            return await threads.run(look)
    except TimeoutError:
        raise CommandFailed(
            f"a folder or file of the mirror has not answered within {_HOST_WITHIN:g} s: is it on "
            "a share that is gone? (storage.path, storage.second_tier, secrets)"
        ) from None
    finally:
        threads.leave()


def since_loaded(config: Config, path: Path) -> Diagnosis:
    """Whether the file says what the mirror goes by. Blocking."""
    try:
        following_it, needs_restart = following(config, load_again(path))
    except ConfigError as error:
        first, *more = map(str, error.problems)
        others = f" (and {len(more)} more)" if more else ""
        return bad(
            "reload",
            f"the mirror goes by what it has loaded; a reload would be refused: {first}{others}",
            f"registry-mirror check --config {path}",
        )
    if following_it != config:
        return warn("reload", f"{path} was changed since it was loaded", "registry-mirror reload")
    if needs_restart:
        keys = ", ".join(needs_restart)
        return warn("reload", f"{path} has other values for {keys}", "restart the mirror")
    return good("reload", f"{path} says what the mirror goes by")


def _meant(config: Config, subject: str | None) -> tuple[Sequence[str], Sequence[ImageReference]]:
    if subject is None:
        return sorted(config.registries), ()
    if subject in config.registries:
        return (subject,), ()
    try:
        image = parse_image(subject, config.default_registry)
    except RegistryError as error:
        raise CommandFailed(error.message, 2) from None
    registry = image.repository.registry
    if is_registry(subject) and "." in subject:  # as ghcr.io: not Docker Hub's image of that name
        registry = parse_registry(subject)
        if registry in config.registries:
            return (registry,), ()
    if registry not in config.registries and not config.allow_any_registry:
        names = ", ".join(sorted(config.registries))
        raise CommandFailed(f"{registry} is not mirrored; {names} is", 2)
    return ([registry] if registry in config.registries else []), (image,)


async def at_start(config: Config, usage: Callable[[], Usage]) -> None:
    """Once, bounded, behind what is served: what cannot work is told by the log before anybody
    meets it. Asks no registry anything; connects to each."""
    await asyncio.sleep(_START)
    found: list[Diagnosis] = []
    try:
        async with asyncio.timeout(_AT_START_WITHIN):
            async for each in _first_look(config, usage()):
                found += [each]  # one by one: what is known stays when the time is over
    except CommandFailed as error:
        found.append(bad("doctor", error.message, "mount it, or name another folder"))
    except TimeoutError:
        found.append(
            bad("doctor", f"not done within {_AT_START_WITHIN:g} s", "run registry-mirror doctor")
        )
    except OSError as error:  # such as no descriptor left, of which the log tells by itself
        log.warning("doctor_failed", reason=error.strerror)
        return
    except Exception:  # a look at the mirror is never what ends it
        log.exception("doctor_failed")
        return
    wrong = [each for each in found if each.mark is not Mark.GOOD]
    for each in wrong[:_MOST_TOLD]:
        tell = log.error if each.mark is Mark.BAD else log.warning
        tell("doctor", subject=each.subject, reason=each.words, mend=each.mend)
    log.info("looked_over", good=len(found) - len(wrong), wrong=len(wrong))


async def _first_look(config: Config, usage: Usage) -> AsyncGenerator[Diagnosis, None]:
    for found in await _of_host(config, usage):
        yield found
    for look in (
        network.tags(config),
        network.records(config),
        network.fleet(config),
        network.connections(config),
    ):
        async with contextlib.aclosing(look):
            async for found in look:
                yield found
    async for found in network.logins(config, sorted(config.registries)):
        yield found
    async for found in network.behind_the_disk(config):  # last: one that hangs takes long
        yield found
