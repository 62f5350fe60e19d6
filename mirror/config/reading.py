"""The two ways in: a file, or its text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from . import proxies, values
from .admin import AdminConfig
from .collection import CollectionConfig
from .contradictions import contradictions
from .document import MAX_LENGTH, Document, Location, read_document
from .fleet import FleetConfig
from .hosted import HostedConfig
from .listening import ListenConfig, TlsConfig
from .log import LogConfig
from .model import (
    AccessConfig,
    ClientConfig,
    Config,
    Credentials,
    EndpointConfig,
    FreshnessConfig,
    LimitsConfig,
    ProxyConfig,
    QuotaConfig,
    RegistryConfig,
    StorageConfig,
    TagsConfig,
)
from .problems import ConfigError, Mistake, Problem, kind
from .s3 import RedirectConfig, S3Config
from .section import Section, Unread, Unreadable, read_section
from .sync import SyncConfig
from .tracing import TracingConfig
from .webhooks import WebhooksConfig


def load(path: Path | None) -> Config:
    """The configuration in this file, or, with None, the default. Reads the secrets it names.

    Raises ConfigError with all the mistakes in it, or with those of the environment's proxies.
    """
    proxies.environment(os.environ)
    return Config() if path is None else parse(_text(path), str(path))


def load_again(path: Path | None) -> Config:
    """As `load`, for a mirror that runs. A file that says nothing is a mistake then: editors
    truncate a file before they write it, and the default has no rule and no login."""
    return Config() if path is None else parse(_written(path), str(path))


def store_of(path: Path | None) -> Path:
    """`storage.path` in this file of a mirror that runs, whatever else is wrong in it. Raises
    ConfigError where it cannot be read so far."""
    if path is None:
        return StorageConfig().path
    document = read_document(_written(path), str(path))
    section = document.data.get("storage") if isinstance(document.data, dict) else None
    given = section.get("path") if isinstance(section, dict) else None
    if given is None:
        return StorageConfig().path
    try:
        return values.path(given)
    except Mistake as mistake:
        location = ("storage", "path")
        raise ConfigError([document.problem(location, mistake.found, mistake.write)]) from None


def _written(path: Path) -> str:
    """The text of a file that is not empty. Raises ConfigError."""
    text = _text(path)
    if not text.strip():
        write = "a key at least; a file that is replaced by a rename is whole at every moment"
        raise ConfigError([Problem(str(path), 1, "", "an empty file", write)])
    return text


def _text(path: Path) -> str:
    """Raises ConfigError."""
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(4 * MAX_LENGTH + 1)  # UTF-8 has 4 bytes a character at most
    except OSError as error:
        found = (error.strerror or "an unreadable file").lower()
        write = "the path of a readable configuration file"
        raise ConfigError([Problem(source, None, "", found, write)]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(source, line, "", "bytes that are no UTF-8", "the file as UTF-8 text")
        if len(data) <= 4 * MAX_LENGTH:
            raise ConfigError([problem]) from None
        text = data.decode("latin-1")  # cut in a character, perhaps; and too long anyway
    return text


def parse(text: str, source: str) -> Config:
    """The configuration in this text; `source` is what messages call it.

    Raises ConfigError with all the mistakes in it.
    """
    document = read_document(text, source)
    data: Any = {} if document.data is None else document.data
    problems = list(document.problems)
    if not isinstance(data, dict):
        write = "'key: value' lines, such as 'listen: 127.0.0.1:5000'"
        raise ConfigError([document.problem((), kind(data), write), *problems])
    problems += [
        document.problem(location, mistake.found, mistake.write)
        for location, mistake in contradictions(data)
    ]
    try:
        config = read_section(Config, data)
    except Unreadable as error:
        problems += [_problem(document, place, wrong) for place, wrong in error.found]
    if problems:
        raise ConfigError(problems)
    return config


def _problem(document: Document, place: Location, wrong: Mistake | Unread) -> Problem:
    location = _as_written(document, place)
    mistake = wrong if isinstance(wrong, Mistake) else _misshapen(wrong, location)
    return document.problem(location, mistake.found, mistake.write)


def _as_written(document: Document, location: Location) -> Location:
    """The location without the indices of lists that were written as their one item, and without
    the keys of sections that were written as the value of one."""
    written: list[str | int] = []
    data: Any = document.data
    for step in location:
        if isinstance(step, int) and not isinstance(data, list):
            continue
        if isinstance(data, str):  # a section that was written as its one key's value
            continue
        written.append(step)
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            data = None if isinstance(data, dict) else []
    return tuple(written)


def _misshapen(unread: Unread, location: Location) -> Mistake:
    """What is not a matter of one value's text. Values are not shown: they may be secrets."""
    value = unread.value
    if unread.what == "unknown":
        return Mistake("a key that is not known", _known_key(location))
    if unread.what == "missing":
        return Mistake(f"no {location[-1]}", f"{location[-1]}: too")
    if unread.what == "list":
        return Mistake(kind(value), "a list: '- ' before each item")
    if location[0] == "access" and isinstance(location[-1], int):
        return Mistake(kind(value), "- {name: no-internal, deny: internal/*}")
    if location[0] == "sync" and isinstance(location[-1], int):
        return Mistake(kind(value), "- {images: [redis:7], every: 6h}")
    if isinstance(location[-1], int) and location[-2] == "credentials":
        return Mistake(kind(value), "- {username: me, password_file: /run/secrets/hub}")
    if isinstance(location[-1], int) and location[-2] == "freshness":
        return Mistake(kind(value), '- {match: "library/*:latest", ttl: 1m}')
    if location[0] == "listen":
        return Mistake(kind(value), "- 127.0.0.1:5000, or - {address: 127.0.0.1:5000, tls: false}")
    if isinstance(location[-1], int):
        return Mistake(kind(value), "- url: https://registry.example.com")
    if len(location) == 2 and location[0] == "registries":
        name = str(location[1])
        if name in RegistryConfig.fields():
            return Mistake("what is no registry's name", _below_a_registry(name))
    return Mistake(kind(value), "its keys below it, indented")


# Sections by the name of the key they stand at.
_SECTIONS: dict[str | int, type[Section]] = {
    "admin": AdminConfig,
    "listen": ListenConfig,
    "tls": TlsConfig,
    "hosted": HostedConfig,
    "webhooks": WebhooksConfig,
    "gc": CollectionConfig,
    "fleet": FleetConfig,
    "tracing": TracingConfig,
    "log": LogConfig,
    "storage": StorageConfig,
    "s3": S3Config,
    "redirect": RedirectConfig,
    "tags": TagsConfig,
    "limits": LimitsConfig,
    "credentials": Credentials,
    "freshness": FreshnessConfig,
    "quota": QuotaConfig,
    "proxy": ProxyConfig,
    "client": ClientConfig,
}

# Sections in the list at a key of the first level.
_LISTED: dict[str | int, type[Section]] = {
    "access": AccessConfig,
    "hosted": ListenConfig,
    "listen": ListenConfig,
    "sync": SyncConfig,
}

# Not the nearest in spelling, but what was meant.
_MEANT = {
    "password": "password_file, with the path of a file that holds it",
    "secret": "secret_file, with the path of a file that holds it",
    "token": "token_file, with the path of a file that holds it",
    "secret_access_key": "secret_access_key_file, with the path of a file that holds it",
    "identity_token": "identity_token_file, with the path of a file that holds it",
}


def _known_key(location: Location) -> str:
    *parents, key = location
    known = [field.called for field in _section_at(parents).fields().values()]
    for meant, write in _MEANT.items():
        if key == meant and f"{meant}_file" in known:
            return write
    close = get_close_matches(str(key)[:80].lower(), known, n=1)
    if not close and not parents and key in RegistryConfig.fields():
        return _below_a_registry(str(key))
    return close[0] if close else "one of " + ", ".join(known)


def _below_a_registry(key: str) -> str:
    return f"it below a registry, as in registries: {{docker.io: {{{key}: …}}}}"


def _section_at(location: Sequence[str | int]) -> type[Section]:
    if not location:
        return Config
    if isinstance(location[-1], int):
        if location[-2] == "credentials":
            return Credentials
        if location[-2] == "freshness":
            return FreshnessConfig
        return _LISTED.get(location[0], EndpointConfig)
    if len(location) == 2 and location[0] == "registries":
        return RegistryConfig
    return _SECTIONS[location[-1]]
