"""What a mirror has of its host: the store's folder, room, limits. Blocking."""

from __future__ import annotations

import os
import pwd
import resource
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...clock import Clock
from ...config import Config
from ...contracts.content import Usage
from ...quantities import binary_size
from ...storage.disk.shortages import shortages
from ...storage.disk.space import Bounds
from ..forewarned import certificate_trouble, certificates_of
from .findings import Diagnosis, bad, good, warn

_FEW_FILES = 4096  # descriptors: three for each transfer
_LITTLE_MEMORY = 192 << 20  # bytes, for one process
_LOOKED_AT = 2000  # files of the store, for their owner
# File systems that hold a store badly, and why.
_ODD = {
    "tmpfs": ("is memory: what is cached is gone after a restart of the host", "a disk's folder"),
    "overlay": ("is a container's own layer: it goes with the container", "a volume"),
    "nfs": ("is a network share: SQLite and locks are slow or unsafe there", "a local disk"),
    "nfs4": ("is a network share: SQLite and locks are slow or unsafe there", "a local disk"),
    "cifs": ("is a network share: SQLite and locks are slow or unsafe there", "a local disk"),
    "9p": ("is a share of a virtual machine's host: SQLite is unsafe there", "a local disk"),
}


def host(config: Config, usage: Usage | None) -> Iterator[Diagnosis]:
    """`usage`: what the store holds, None where that is not known."""
    yield from store(config)
    yield from room(config, usage)
    yield from second_tier(config)
    yield from certificate(config)
    yield from limits()
    yield from proxies(os.environ)


def store(config: Config) -> Iterator[Diagnosis]:
    path = config.storage.path
    place = path.absolute()
    try:
        found = place.stat()
    except FileNotFoundError:
        parent = next(each for each in place.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield good("store", f"{place} is not there yet: it is made when the mirror starts")
        else:
            yield bad(
                "store",
                f"{place} is not there, and {_me()} may not make it in {parent}",
                f"install -d -o USER -m 700 {place}",
            )
        return
    except OSError as error:
        yield bad("store", f"{place}: {_words(error)}", f"let {_me()} reach it")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield bad("store", f"{place} is no folder", "name a folder in storage.path")
        return
    owner = _name(found.st_uid)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        yield bad(
            "store",
            f"{place} is {owner}'s (mode {found.st_mode & 0o7777:o}): {_me()} may not write there",
            f"run as {owner}, or chown -R it; under systemd: StateDirectory=, or ReadWritePaths=",
        )
        return
    kind = _file_system(place)
    yield good("store", f"{place}, {owner}'s, can be written; file system {kind or 'unknown'}")
    if kind in _ODD:
        why, better = _ODD[kind]
        yield warn("store", f"its file system ({kind}) {why}", f"name {better} in storage.path")
    others = _of_others(place, found.st_uid)
    if others:
        yield bad(
            "store",
            f"{others[0]} and {len(others) - 1} more files there are not {owner}'s: they can "
            "neither be served nor evicted",
            f"chown -R --from=root {owner}: {place}",
        )


def _of_others(place: Path, owner: int) -> list[Path]:
    """Of its first files, those that the store's owner may not use."""
    found: list[Path] = []
    seen = 0
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            seen += 1
            if seen > _LOOKED_AT:
                return found
            path = Path(folder, name)
            try:
                if path.lstat().st_uid != owner:
                    found.append(path)
            except OSError:
                continue
    return found


def room(config: Config, usage: Usage | None) -> Iterator[Diagnosis]:
    place = _existing(config.storage.path.absolute())
    bounds = Bounds(config.storage.max_size, config.storage.min_free)
    try:
        disk = os.statvfs(place)
    except OSError as error:
        yield bad("room", f"{place}: {_words(error)}", "let the mirror reach it")
        return
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    here = "" if usage is None else f"{binary_size(usage.content_bytes)} are cached; "
    held = 0 if usage is None else usage.content_bytes
    most = binary_size(bounds.max_size)
    there = f"{binary_size(free)} of {binary_size(total)} free"
    yield good("room", f"{here}max_size is {most}; {there}")
    for lack in shortages(place, bounds, usage or Usage(0, 0, 0, bounds.max_size)):
        yield bad("room", lack, "make room on that disk, or correct max_size and min_free")
    if bounds.max_size > free + held:
        yield warn(
            "room",
            f"max_size is {most}, and no more than {binary_size(free + held)} fit",
            "lower max_size, or move storage.path to a larger disk",
        )


def second_tier(config: Config) -> Iterator[Diagnosis]:
    path = config.storage.second_tier
    if path is None:
        return
    try:
        os.listdir(path)
    except OSError as error:
        yield bad(
            "second tier", f"{path}: {_words(error)}", "mount it; until then nothing is there"
        )
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield bad("second tier", f"{path} cannot be written by {_me()}", f"let {_me()} write there")
        return
    yield good("second tier", f"{path} can be written")


def certificate(config: Config) -> Iterator[Diagnosis]:
    wall = Clock().wall()
    for key, tls in certificates_of(config).items():
        words = certificate_trouble(key, tls, wall)
        if words is not None:
            found = bad if tls.facts.ends.timestamp() <= wall else warn
            reload = "then registry-mirror reload: no connection is cut"
            yield found("certificate", words, reload if key == "tls" else "then restart the mirror")
            continue
        names, until = ", ".join(tls.facts.names), f"{tls.facts.ends:%Y-%m-%d}"
        yield good("certificate", f"{tls.cert.file} is for {names}, until {until}")


def limits() -> Iterator[Diagnosis]:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield warn(
            "limits",
            f"{files} descriptors: each transfer takes three",
            "LimitNOFILE=65536 (systemd), --ulimit nofile=65536 (Docker)",
        )
    else:
        yield good("limits", f"{files} descriptors")
    memory = _memory_limit()
    if memory is not None and memory < _LITTLE_MEMORY:
        yield warn(
            "memory",
            f"the group of this process may take {binary_size(memory)}",
            f"allow {binary_size(_LITTLE_MEMORY)} for each process",
        )


def _memory_limit() -> int | None:
    """Bytes, of the control group (cgroup v2); None for no limit, or where that is not known."""
    try:
        group = Path("/proc/self/cgroup").read_text().splitlines()[0].rpartition(":")[2]
        found = Path(f"/sys/fs/cgroup{group}/memory.max").read_text().strip()
        return int(found)
    except (OSError, ValueError, IndexError):
        return None


def proxies(variables: Mapping[str, str]) -> Iterator[Diagnosis]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    given = [name for name in names if variables.get(name) or variables.get(name.lower())]
    if given:
        words = f"{', '.join(given)} of the environment count where mirror.yaml has no proxy"
        yield good("proxies", words)


def _existing(place: Path) -> Path:
    return place if place.exists() else next(each for each in place.parents if each.exists())


def _file_system(place: Path) -> str:
    """Its kind, by the longest mount point above it; "" where that is not known."""
    real, best, kind = Path(os.path.realpath(place)), -1, ""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in mounts:
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if real.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind


def _me() -> str:
    return _name(os.geteuid())


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
