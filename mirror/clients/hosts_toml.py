"""containerd's hosts.toml, one for each registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..oci.registries import url_of
from . import toml
from .plan import Change, Files, Plan, Served, Unusable, naming

FOLDER = Path("/etc/containerd/certs.d")
CONFIG = Path("/etc/containerd/config.toml")

_HOST = re.compile(r"\s*\[\s*host\b")
# Where containerd's CRI plugin has the folder's name: of 1.x (version = 2) and 2.x (version = 3).
_CRI_1 = "io.containerd.grpc.v1.cri"
_CRI_2 = "io.containerd.cri.v1.images"


def plan(served: Served, files: Files, folder: Path = FOLDER) -> Plan:
    """Raises Unusable, with the path of the file that cannot be edited."""
    changes = []
    for registry in served.registries:
        path = folder / registry / "hosts.toml"
        before = files.read(path)
        with naming(path):
            changes.append(Change(path, before, with_host(before, registry, served)))
    return Plan(changes, [*_defaults(served, files, folder), *_config(files, folder)])


def with_host(text: str | None, registry: str, served: Served) -> str:
    """The text of the registry's hosts.toml with this mirror before the others. Raises Unusable."""
    table = f'[host.{toml.quoted(served.url)}]\n  capabilities = ["pull", "resolve"]\n'
    host: dict[str, Any] = {"capabilities": ["pull", "resolve"]}
    if served.ca is not None:
        table += f"  ca = {toml.quoted(str(served.ca))}\n"
        host["ca"] = str(served.ca)
    if text is None or not text.strip():
        return f"server = {toml.quoted(url_of(registry))}\n\n{table}"
    document = toml.parsed(text)
    hosts = document.get("host", {})
    if not isinstance(hosts, dict):
        raise Unusable("host is no table")
    found = next((hosts[url] for url in hosts if url.rstrip("/") == served.url), None)
    if found is not None:
        _see_that_it_serves(found, served)
        return text
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if _HOST.match(line)), None)
    return toml.extended(text, table, first, {**document, "host": {**hosts, served.url: host}})


def _see_that_it_serves(host: Any, served: Served) -> None:
    """Raises Unusable for one that is there, and that containerd does not pull from."""
    given = host.get("capabilities") if isinstance(host, dict) else ()
    if given is not None and not {"pull", "resolve"} <= set(
        given if isinstance(given, list) else ()
    ):
        raise Unusable(
            f'[host."{served.url}"] is there, and lets containerd not pull from it: write '
            'capabilities = ["pull", "resolve"] there'
        )


def _defaults(served: Served, files: Files, folder: Path) -> Sequence[str]:
    new = [name for name in served.registries if files.read(folder / name / "hosts.toml") is None]
    if new and files.read(folder / "_default" / "hosts.toml") is not None:
        return [
            f"{folder}/_default/hosts.toml does not count for registries with a folder of their "
            f"own, as {', '.join(new)} will have."
        ]
    return []


def _config(files: Files, folder: Path) -> Sequence[str]:
    """What is to be said of containerd's own configuration."""
    text = files.read(CONFIG)
    words = (
        f"Kubernetes (containerd's CRI plugin) reads {folder} only where config_path in {CONFIG} "
        "names it; ctr needs --hosts-dir, and nerdctl reads it by itself."
    )
    try:
        document = toml.parsed(text or "")
    except Unusable as error:
        error.path = CONFIG
        return [f"{words} {error}."]
    is_new = document.get("version", 1) == 3
    registry: Any = document.get("plugins", {})
    for key in (_CRI_2 if is_new else _CRI_1, "registry"):
        registry = registry.get(key, {}) if isinstance(registry, dict) else {}
    path = registry.get("config_path", "") if isinstance(registry, dict) else ""
    if str(folder) in str(path).split(":"):
        return []
    notes = []
    if isinstance(registry, dict) and registry.get("mirrors"):
        notes.append(
            f"{CONFIG} has registry.mirrors, which containerd does not take beside config_path: "
            "remove it."
        )
    write = _config_path(folder, document.get("version") if text else None)
    state = f"there it is {path!r}" if path else "it is not set there"
    if text is None:
        state = "there is no such file"
    return [f"{words} Now {state}: write\n{write}\nand restart containerd.", *notes]


def _config_path(folder: Path, version: object) -> str:
    one = f'    [plugins."{_CRI_1}".registry]\n      config_path = "{folder}"'
    two = f"    [plugins.'{_CRI_2}'.registry]\n      config_path = '{folder}'"
    if version == 3:
        return two
    return one if version == 2 else f"{one}\n(containerd 2, version = 3:)\n{two}"
