"""The images that Kubernetes objects name: of all containers of all pods that are in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .documents import Text

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_CHOSEN_LATER = ("auto",)  # Istio puts its own in that place


def is_object(document: Any) -> bool:
    return isinstance(document, dict) and "kind" in document and "apiVersion" in document


def images(document: Any) -> Iterator[Text]:
    """Wherever a pod's specification stands: in a Pod, in a template of a Deployment, a CronJob or
    an operator's own kind, in a List. Each place once, however many aliases lead to it."""
    waiting, met, read = [document], {id(document)}, set[tuple[str, int]]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in (*_CONTAINERS, "volumes"):
                section = value.get(key)
                if (key, id(section)) not in read:
                    read.add((key, id(section)))
                    of_each = _of_volumes if key == "volumes" else _of_containers
                    yield from of_each(section)
        inside = value.values() if isinstance(value, dict) else value
        for one in reversed(list(inside)):
            if isinstance(one, dict | list) and id(one) not in met:
                met.add(id(one))
                waiting.append(one)


def _of_containers(section: Any) -> Iterator[Text]:
    for container in _mappings(section):
        yield from _named(container, "image")


def _of_volumes(section: Any) -> Iterator[Text]:
    for volume in _mappings(section):
        if isinstance(source := volume.get("image"), dict):
            yield from _named(source, "reference")


def _named(one: dict[str, Any], key: str) -> Iterator[Text]:
    image = one.get(key)
    if isinstance(image, Text) and image not in _CHOSEN_LATER:
        yield image


def _mappings(section: Any) -> Iterator[dict[str, Any]]:
    if isinstance(section, list):
        yield from (one for one in section if isinstance(one, dict))
