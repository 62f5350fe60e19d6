"""k3s' registries.yaml (RKE2 has the same)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .plan import Change, Files, Plan, Served, Unusable, by_hand, naming

FILE = Path("/etc/rancher/k3s/registries.yaml")


def plan(served: Served, files: Files, file: Path = FILE) -> Plan:
    """Raises Unusable."""
    before = files.read(file)
    text = before or ""
    with naming(file):
        for registry in served.registries:
            text = with_value(text, ("mirrors", registry, "endpoint"), [served.url])
        if served.ca is not None:
            text = with_value(text, ("configs", served.place, "tls", "ca_file"), str(served.ca))
    return Plan([Change(file, before, text)], (), "systemctl restart k3s (k3s-agent on an agent)")


def with_value(text: str, path: Sequence[str], value: str | list[str]) -> str:
    """The text with this value below these keys: of a list that is there, as its first. Raises
    Unusable."""
    root, document = _composed(text)
    wanted = _set(document, path, value)
    if wanted == document:
        return text
    after = _edited(text, root, path, value)
    try:
        is_wanted = yaml.safe_load(after) == wanted
    except yaml.YAMLError:
        is_wanted = False
    if not is_wanted:
        raise Unusable(by_hand(_block(_nested(path, value), 0)))
    return after


def _composed(text: str) -> tuple[yaml.Node | None, Any]:
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        _refuse_duplicates(root)
        return root, yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise Unusable(f"it is no YAML: {error.problem}", *place) from None
    except yaml.YAMLError as error:
        raise Unusable(f"it is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise Unusable("it is nested too deeply") from None


def _refuse_duplicates(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_duplicates(each)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value.__hash__ and key.value in seen:
                mark = key.start_mark
                raise Unusable(
                    f"the key {key.value} is there twice: remove one",
                    mark.line + 1,
                    mark.column + 1,
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
            _refuse_duplicates(value)


def _set(document: Any, path: Sequence[str], value: str | list[str]) -> Any:
    """The document with the value in it. Raises Unusable."""
    if not path:
        if isinstance(value, list):
            there = [] if document is None else document
            if not isinstance(there, list) or not all(isinstance(each, str) for each in there):
                raise Unusable("endpoint is no list of URLs: make it one first")
            return there if any(_same(each, value[0]) for each in there) else [*value, *there]
        if document not in (None, value):
            raise Unusable(f"there is another than {value}: {document}")
        return value
    there = {} if document is None else document
    if not isinstance(there, dict):
        raise Unusable(f"there are no keys where {path[0]} should be")
    return {**there, path[0]: _set(there.get(path[0]), path[1:], value)}


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _edited(
    text: str,
    node: yaml.Node | None,
    path: Sequence[str],
    value: str | list[str],
    line: int | None = None,
) -> str:
    """`line` is where the line of the node's key ends: what is new goes below it, and above the
    comments of what is there; None: the node is the document."""
    if isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            if path and key.value == path[0]:
                end = text.find("\n", key.end_mark.index)
                end = len(text) if end < 0 else end
                if isinstance(inner, yaml.ScalarNode) and not inner.value:  # a key alone
                    return _below(text, end, _nested(path[1:], value), key.start_mark.column + 2)
                return _edited(text, inner, path[1:], value, end)
    new = _nested(path, value)
    if isinstance(node, yaml.CollectionNode) and (node.flow_style or not node.value):
        inside = node.start_mark.index + 1
        comma = ", " if node.value else ""
        return f"{text[:inside]}{json.dumps(new)[1:-1]}{comma}{text[inside:]}"
    if node is None or line is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + _block(new, 0)
    return _below(text, line, new, node.start_mark.column)


def _below(text: str, line: int, new: Any, indent: int) -> str:
    return f"{text[:line]}\n{_block(new, indent).rstrip(chr(10))}{text[line:]}"


def _nested(path: Sequence[str], value: str | list[str]) -> Any:
    new: Any = value
    for key in reversed(path):
        new = {key: new}
    return new


def _block(new: Any, indent: int) -> str:
    shown = yaml.safe_dump(new, default_flow_style=False, sort_keys=False)
    return "".join(f"{' ' * indent}{line}\n" for line in shown.splitlines())
