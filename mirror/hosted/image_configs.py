"""What an image's configuration says of it, for people (image-spec, config.md): pure. It comes from
strangers: what is not as it should be is left out, and what is long is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..contracts.administration import ImageConfig
from ..oci.documents import read_object
from ..oci.errors import RegistryError

CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)

LARGEST = 1 << 20
"""Bytes: a larger one is not shown."""

_MOST = 200  # of each list
_LONGEST = 4096  # characters of each text


def image_config(data: bytes) -> ImageConfig | None:
    """None for what is no configuration."""
    try:
        document = read_object(data)
    except RegistryError:
        return None
    run = document.get("config")
    run = run if isinstance(run, dict) else {}
    return ImageConfig(
        _text(document.get("created")),
        _text(run.get("User")),
        _text(run.get("WorkingDir")),
        tuple(_texts(run.get("Entrypoint"))),
        tuple(_texts(run.get("Cmd"))),
        tuple(_texts(run.get("Env"))),
        tuple(_keys(run.get("ExposedPorts"))),
        dict(_labels(run.get("Labels"))),
        tuple(_steps(document.get("history"))),
    )


def _text(found: Any) -> str:
    return found[:_LONGEST] if isinstance(found, str) else ""


def _texts(found: Any) -> Iterator[str]:
    for each in found[:_MOST] if isinstance(found, list) else ():
        if isinstance(each, str):
            yield each[:_LONGEST]


def _keys(found: Any) -> Iterator[str]:
    yield from _texts(list(found) if isinstance(found, dict) else None)


def _labels(found: Any) -> Iterator[tuple[str, str]]:
    labels: Mapping[str, Any] = found if isinstance(found, dict) else {}
    for key, value in list(labels.items())[:_MOST]:
        if isinstance(value, str):
            yield key[:_LONGEST], value[:_LONGEST]


def _steps(found: Any) -> Iterator[str]:
    for each in found[:_MOST] if isinstance(found, list) else ():
        if isinstance(each, dict) and (step := _text(each.get("created_by"))):
            yield step
