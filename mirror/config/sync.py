"""The section `sync`: images that are brought here before a client asks for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from ..frozen import dataclass
from ..oci.errors import BadRequest, quoted
from ..oci.registries import DOCKER_HUB
from ..oci.wanted import parse_wanted, registry_of
from . import values
from .document import Location
from .problems import Mistake
from .section import Read, Section

_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2}) ?- ?([0-9]{1,2}):([0-9]{2})(?: +(\S+))?", re.ASCII)
_PLATFORM = re.compile(r"[a-z0-9]{1,32}/[a-z0-9_]{1,32}(?:/[a-z0-9.]{1,32})?", re.ASCII)
_LEAST_EVERY = 60.0
_MOST_NEWEST = 10_000


@dataclass(frozen=True, slots=True)
class ClockWindow:
    """From `start` to `stop`, in minutes since midnight. `zone`: a name of the tz database; None
    for the host's own time."""

    start: int
    stop: int
    zone: str | None = None

    def __str__(self) -> str:
        times = "-".join(f"{time // 60:02}:{time % 60:02}" for time in (self.start, self.stop))
        return f"{times} {self.zone}" if self.zone else times


def _window(value: object) -> ClockWindow:
    write = 'a window such as "01:00-05:00", or "22:00-05:00 Europe/Berlin"'
    given = values.text(value, write)
    match = _WINDOW.fullmatch(given)
    if match is None:
        raise Mistake(quoted(given), write)
    hour, minute, until_hour, until_minute = map(int, match.groups()[:4])
    if not (hour < 24 and minute < 60 and until_minute < 60):
        raise Mistake(quoted(given), f"{write}: times from 00:00 to 24:00")
    stop = until_hour * 60 + until_minute
    if stop > 24 * 60:
        raise Mistake(quoted(given), f"{write}: times from 00:00 to 24:00")
    zone = match[5]
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):
            raise Mistake(
                f"the zone {quoted(zone)}, which this host does not know",
                "a zone such as Europe/Berlin or UTC; left out, it is the host's",
            ) from None
    return ClockWindow(hour * 60 + minute, stop % (24 * 60), zone)


def _wanted(value: object) -> str:
    write = 'an image such as redis:7, tags such as "ghcr.io/acme/app:v*", or "@list.txt"'
    given = values.text(value, write)
    if given.startswith("@"):
        values.readable_file(given[1:])
        return given
    try:
        parse_wanted(given, DOCKER_HUB)
    except BadRequest:
        raise Mistake(quoted(given), write) from None
    return given


def _platform(value: object) -> str:
    write = "a platform such as linux/arm64, or all"
    given = values.text(value, write)
    if given != "all" and not _PLATFORM.fullmatch(given):
        raise Mistake(quoted(given), write)
    return given


def _every(value: object) -> float:
    seconds = values.seconds(value)
    if seconds < _LEAST_EVERY:
        raise Mistake(quoted(str(value)), "a time of 1m at least, such as 6h")
    return seconds


def _one_or_more(value: object) -> object:
    if value == [] or value is None:
        raise Mistake("nothing", "a list such as [redis:7]")
    return value if isinstance(value, list) else [value]


class SyncConfig(Section):
    """Which images are brought, for which platforms (none named: this host's), and when. Of tags
    that a pattern means, the `newest` so many; None: all. `spare_quota`: the share of an upstream's
    pull limit that is left to clients."""

    name: Annotated[str | None, Read(values.rule_name)] = None
    images: Annotated[tuple[Annotated[str, Read(_wanted)], ...], Read(_one_or_more)]
    platforms: Annotated[tuple[Annotated[str, Read(_platform)], ...], Read(_one_or_more)] = ()
    every: Annotated[float, Read(_every)] = 86400.0
    window: Annotated[ClockWindow | None, Read(_window)] = None
    newest: Annotated[int | None, Read(values.count(_MOST_NEWEST))] = None
    spare_quota: Annotated[float, Read(values.share)] = 0.5


def name_of(entry: SyncConfig, index: int) -> str:
    """What the entry is called: where it has no name, its place in the list, from 1 on."""
    return entry.name or str(index + 1)


def mistakes(
    entries: object, default: str, mirrored: list[str], any_registry: bool
) -> Iterator[tuple[Location, Mistake]]:
    """What is wrong between entries, and between them and the registries that are `mirrored`."""
    first_at: dict[str, int] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            continue
        name = entry.get("name", str(index + 1))
        if isinstance(name, str) and first_at.setdefault(name, index) != index:
            yield ("sync", index, "name"), Mistake(f"{quoted(name)} a second time", "another name")
        images = entry.get("images")
        place: Location = ("sync", index, "images")
        for number, image in enumerate(images if isinstance(images, list) else [images]):
            registry = _registry(image, default)
            if registry is not None and registry not in mirrored and not any_registry:
                listed = " or ".join(mirrored[:3])
                mistake = Mistake(
                    f"an image of {registry}, which is not mirrored", f"one of {listed}"
                )
                yield (*place, number) if isinstance(images, list) else place, mistake


def _registry(image: Any, default: str) -> str | None:
    """Of an image, or a pattern; None of a list, and of what is a mistake by itself."""
    if not isinstance(image, str) or image.startswith("@"):
        return None
    try:
        return registry_of(parse_wanted(image, default))
    except BadRequest:
        return None
