"""What of a configuration can change while a mirror runs, and what needs a restart."""

from __future__ import annotations

from collections.abc import Sequence

from .model import Config
from .s3 import S3Config
from .section import Section

_FIXED: Sequence[tuple[str, ...]] = (
    # Ports that are open, and processes that run.
    ("listen",),
    ("admin", "listen"),
    ("workers",),
    # Ports again, and all that is opened for them.
    ("hosted",),
    ("fleet",),
    # Files that are open, the store's lock, and threads that were told what to keep to.
    ("storage", "path"),
    ("storage", "max_size"),
    ("storage", "min_free"),
    ("storage", "durability"),
    ("storage", "partial_ttl"),
    ("storage", "scrub"),
    ("storage", "second_tier"),
    # Connections to it, each with a login.
    ("storage", "s3"),
    # A thread, and a connection to the collector.
    ("tracing",),
    # Connections to the tag memory, of which each has a login.
    ("tags", "store"),
    ("tags", "password_file"),
    ("tags", "password_env"),
    ("tags", "ca_file"),
    ("tags", "sentinel_password_file"),
)
NEEDS_RESTART: Sequence[str] = tuple(".".join(path) for path in _FIXED)
"""Keys of mirror.yaml. All others take effect at a reload."""


def following(running: Config, written: Config) -> tuple[Config, Sequence[str]]:
    """What a mirror that runs by one configuration can make of another: that one, but for the keys
    that need a restart, which stay as they are; and those of them that were changed.

    >>> running = Config()
    >>> written = running.but({"workers": 2, "offline": True})
    >>> config, kept = following(running, written)
    >>> config.offline, config.workers, kept
    (True, 1, ['workers'])
    """
    kept = []
    for path in _FIXED:
        value, other = _at(running, path), _at(written, path)
        if _as_opened(value) != _as_opened(other):
            kept.append(".".join(path))
            written = _with(written, path, value)
    if "admin.listen" in kept:  # who may change something depends on where that is
        written = _with(written, ("admin",), running.admin)
    return written, kept


def _as_opened(value: object) -> object:
    """By what it is opened: of a bucket's secret that is its file, which is read time and again."""
    if isinstance(value, S3Config) and value.secret_access_key_file is not None:
        return value.but({"secret_access_key_file": value.secret_access_key_file.file})
    return value


def _at(section: Section, path: tuple[str, ...]) -> object:
    value: object = section
    for key in path:
        value = getattr(value, key)
    return value


def _with(config: Config, path: tuple[str, ...], value: object) -> Config:
    *parents, key = path
    if not parents:
        return config.but({key: value})
    [parent] = parents
    section: Section = getattr(config, parent)
    return config.but({parent: section.but({key: value})})
