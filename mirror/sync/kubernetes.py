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
    waiting, met = [document], {id(document)}
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in _CONTAINERS:
                yield from _of_each(value.get(key), "image")
            for volume in _mappings(value.get("volumes")):
                yield from _of_each([volume.get("image")], "reference")
        inside = value.values() if isinstance(value, dict) else value
        for one in reversed(list(inside)):
            if isinstance(one, dict | list) and id(one) not in met:
                met.add(id(one))
                waiting.append(one)


def _of_each(section: Any, key: str) -> Iterator[Text]:
    for one in _mappings(section):
        image = one.get(key)
        if isinstance(image, Text) and image not in _CHOSEN_LATER:
            yield image


def _mappings(section: Any) -> Iterator[dict[str, Any]]:
    if isinstance(section, list):
        yield from (one for one in section if isinstance(one, dict))
