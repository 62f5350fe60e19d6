"""Docker's daemon.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..frozen import dataclass
from ..oci.registries import DOCKER_HUB
from .plan import Change, Files, Plan, Served, Unusable, authority, by_hand, naming

FILE = Path("/etc/docker/daemon.json")
CERTIFICATES = Path("/etc/docker/certs.d")
KEY = "registry-mirrors"

_BOM = "\ufeff"
_SPACE = " \t\r\n"
# Where a flag may stand that dockerd refuses beside the key.
_UNITS = Path("/etc/systemd/system/docker.service.d")
_DEFAULTS = Path("/etc/default/docker")


@dataclass(frozen=True, slots=True)
class _Member:
    """One of an object's, with where it stands in the text."""

    key: str
    key_start: int
    value: Any
    start: int
    end: int


def plan(served: Served, files: Files, file: Path = FILE) -> Plan:
    """Raises Unusable."""
    if DOCKER_HUB not in served.registries:
        raise Unusable(
            "Docker asks mirrors for Docker Hub's images only, and this mirror does not serve "
            f"{DOCKER_HUB}"
        )
    url, notes = served.url, []
    if served.default != DOCKER_HUB:
        url = f"{url}/{DOCKER_HUB}"
        notes.append("Docker before 28 refuses a mirror's URL with a path, which this one needs.")
    others = [name for name in served.registries if name != DOCKER_HUB]
    if others:
        notes.append(
            f"Docker asks no mirror for {', '.join(others)}: it pulls those from the registry, or "
            f"by the mirror's own name, as in docker pull {served.place}/{others[0]}/acme/app:v1."
        )
    before = files.read(file)
    with naming(file):
        changes = [Change(file, before, with_mirror(before or "", url))]
    if served.ca is not None:
        changes.append(authority(served.ca, CERTIFICATES / served.place / "ca.crt", files))
    notes += [
        f"{place} starts dockerd with --registry-mirror, and beside {KEY} in {file.name} it "
        "refuses to start: remove the flag."
        for place in (_DEFAULTS, *files.below(_UNITS, ".conf"))
        if "--registry-mirror" in (files.read(place) or "")
    ]
    return Plan(changes, notes, "systemctl reload docker")


def with_mirror(text: str, url: str) -> str:
    """The text of daemon.json with this mirror before the others, if it is not there already.
    Raises Unusable."""
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(_BOM)
    if not text.strip():
        return bom + json.dumps({KEY: [url]}, indent=2) + "\n"
    members = _members(text)
    was = {member.key: member.value for member in members}
    found = next((member for member in members if member.key == KEY), None)
    mirrors = [] if found is None else _urls(text, found)
    if any(each.rstrip("/") == url.rstrip("/") for each in mirrors):
        return bom + text
    after = _inserted(text, members, url) if found is None else _prepended(text, found, url)
    wanted = {**was, KEY: [url, *mirrors]}
    if json.loads(after) != wanted:
        raise Unusable(by_hand(json.dumps({KEY: [url, *mirrors]})))
    return bom + after


def _urls(text: str, member: _Member) -> list[str]:
    value = member.value
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Unusable.at(text, member.start, f"{KEY} is not a list of URLs: make it one first")
    return value


def _inserted(text: str, members: Sequence[_Member], url: str) -> str:
    new = f"{json.dumps(KEY)}: [{json.dumps(url)}]"
    if not members:
        brace = text.index("{")
        return f"{text[:brace]}{{\n  {new}\n}}{text[text.rindex('}') + 1 :]}"
    gap = text[text.index("{") + 1 : members[0].key_start]
    end = members[-1].end
    return f"{text[:end]},{gap if chr(10) in gap else ' '}{new}{text[end:]}"


def _prepended(text: str, found: _Member, url: str) -> str:
    inside = found.start + 1
    if not found.value:
        return f"{text[: found.start]}[{json.dumps(url)}]{text[found.end :]}"
    first = _after_space(text, inside)
    gap = text[inside:first]
    return f"{text[:first]}{json.dumps(url)},{gap if chr(10) in gap else ' '}{text[first:]}"


def _members(text: str) -> Sequence[_Member]:
    """Those of the object that the text is. Raises Unusable."""
    decoder = json.JSONDecoder()
    members: list[_Member] = []
    try:
        if not isinstance(json.loads(text), dict):
            raise Unusable.at(text, _after_space(text, 0), "it is no JSON object: { … }")
        place = _after_space(text, _after_space(text, 0) + 1)
        while text[place] != "}":
            key_start = place
            key, place = decoder.raw_decode(text, place)
            start = _after_space(text, _after_space(text, place) + 1)
            value, end = decoder.raw_decode(text, start)
            if any(member.key == key for member in members):
                raise Unusable.at(text, key_start, f"the key {key} is there twice: remove one")
            members.append(_Member(key, key_start, value, start, end))
            place = _after_space(text, end)
            if text[place] == ",":
                place = _after_space(text, place + 1)
    except json.JSONDecodeError as error:
        raise Unusable(f"it is no JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise Unusable("it is nested too deeply") from None
    return members


def _after_space(text: str, start: int) -> int:
    while start < len(text) and text[start] in _SPACE:
        start += 1
    return start
