"""registries.conf and its drop-ins: podman, skopeo, buildah, CRI-O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..frozen import dataclass
from . import toml
from .plan import Change, Files, Plan, Served, Unusable, authority, naming

MAIN = Path("/etc/containers/registries.conf")
FOLDER = Path("/etc/containers/registries.conf.d")
FILE = FOLDER / "registry-mirror.conf"
CERTIFICATES = Path("/etc/containers/certs.d")

_REGISTRY = re.compile(r"\s*\[\[\s*registry\s*\]\]")
_MIRROR = re.compile(r"\s*\[\[\s*registry\s*\.\s*mirror\s*\]\]")
_TABLE = re.compile(r"\s*\[")


@dataclass(frozen=True, slots=True)
class _Defined:
    """Where a registry is defined: in which file, as which of its [[registry]] tables."""

    path: Path
    number: int


def plan(served: Served, files: Files, file: Path = FILE, reload: str = "") -> Plan:
    """A registry that is defined already is extended where it is: of several definitions of one
    prefix these programs take the last, whole. The others go into `file`. Raises Unusable, with
    the path of the file that cannot be read or edited."""
    # What is in effect: the main file, then the drop-ins by name, then nothing.
    others = [path for path in (MAIN, *files.below(FOLDER, ".conf")) if path != file]
    before = {path: files.read(path) for path in (*others, file)}
    texts = {path: text or "" for path, text in before.items()}
    for registry in served.registries:
        defined = _definition(texts, registry)
        path = file if defined is None else defined.path
        with naming(path):
            texts[path] = _with_mirror(texts[path], registry, served, defined)
    changes = [Change(path, before[path], text) for path, text in texts.items()]
    changes = [change for change in changes if change.is_one or change.path == file]
    if served.ca is not None:
        changes.append(authority(served.ca, CERTIFICATES / served.place / "ca.crt", files))
    return Plan([change for change in changes if change.after], (), reload)


def _definition(texts: dict[Path, str], registry: str) -> _Defined | None:
    """The one that counts. Raises Unusable."""
    found = None
    for path in sorted(texts, key=lambda path: (path != MAIN, path.name)):
        with naming(path):
            document = toml.parsed(texts[path])
            if "registries" in document:
                raise Unusable(
                    "it is in the old format ([registries.search] …), which has no mirrors and "
                    "cannot be mixed with the new one: see containers-registries.conf(5)"
                )
            for number, each in enumerate(_registries(document)):
                if each.get("prefix", each.get("location")) == registry:
                    found = _Defined(path, number)
    return found


def _registries(document: dict[str, Any]) -> list[dict[str, Any]]:
    given = document.get("registry", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise Unusable("registry is no list of tables: [[registry]]")
    return given


def _with_mirror(text: str, registry: str, served: Served, defined: _Defined | None) -> str:
    location = served.place if registry == served.default else f"{served.place}/{registry}"
    mirror: dict[str, Any] = {"location": location}
    table = f"[[registry.mirror]]\nlocation = {toml.quoted(location)}\n"
    if served.is_plain:
        mirror["insecure"] = True
        table += "insecure = true\n"
    document = toml.parsed(text)
    registries = _registries(document)
    if defined is None:
        entry = {"prefix": registry, "location": registry, "mirror": [mirror]}
        name = toml.quoted(registry)
        head = f"[[registry]]\nprefix = {name}\nlocation = {name}\n\n"
        wanted = {**document, "registry": [*registries, entry]}
        return toml.extended(text, head + table, None, wanted)
    given = registries[defined.number]
    mirrors: list[dict[str, Any]] = given.get("mirror", [])
    if given.get("blocked"):
        raise Unusable(f"{registry} is blocked there: remove blocked = true first")
    for each in mirrors:
        if each.get("location") == location:
            if served.is_plain and not each.get("insecure"):
                raise Unusable(f"the mirror {location} is there without insecure = true: add it")
            return text
    extended = {**given, "mirror": [mirror, *mirrors]}
    after = [*registries[: defined.number], extended, *registries[defined.number + 1 :]]
    line = _line(text.splitlines(), defined.number)
    return toml.extended(text, table, line, {**document, "registry": after})


def _line(lines: Sequence[str], number: int) -> int | None:
    """Before which line the first mirror of that registry goes; None: at the end."""
    seen = -1
    for place, line in enumerate(lines):
        if seen == number and (_MIRROR.match(line) or _TABLE.match(line)):
            return place
        seen += bool(_REGISTRY.match(line))
    return None
