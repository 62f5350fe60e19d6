"""The API's description (OpenAPI 3.1), made from its routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ... import __version__
from ...frozen import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str
    description: str
    is_path: bool = False
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """`body`: the keys of the JSON object that a POST takes, with their types."""

    method: str
    path: str
    summary: str
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, str] | None = None
    gives: str = "application/json"
    status: int = 200


def document(
    base: str,
    operations: Sequence[Operation],
    description: str,
    logins: Sequence[str] = ("bearer",),
) -> Mapping[str, Any]:
    """`logins`: the schemes of HTTP (RFC 9110, section 11) by which a program says who it is."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "registry-mirror",
            "version": __version__,
            "description": f"{_UNITS} {description}",
        },
        "servers": [{"url": base}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {each: {"type": "http", "scheme": each} for each in logins},
        },
        "security": [{}, *({each: []} for each in logins)],
    }


_UNITS = "Times are seconds since the epoch, durations seconds, sizes bytes."


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_FAILURE = {
    "description": "It was not done, and why",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _operation(operation: Operation) -> dict[str, Any]:
    shown = re.sub(r"\{\w+\}", "one", operation.path.strip("/"))
    shown = re.sub(r"[^a-z0-9]+", "_", shown)
    found: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}_{shown}",
        "summary": operation.summary,
        "responses": {
            str(operation.status): {"description": "Done", "content": {operation.gives: {}}},
            "default": _FAILURE,
        },
    }
    if operation.parameters:
        found["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body is not None:
        properties = {name: _typed(kind) for name, kind in operation.body.items()}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.type}
    if parameter.values:
        schema["enum"] = list(parameter.values)
    found: dict[str, Any] = {"name": parameter.name, "schema": schema}
    found["in"] = "path" if parameter.is_path else "query"
    if parameter.is_path:
        found["required"] = True
    if parameter.description:
        found["description"] = parameter.description
    return found


def _typed(kind: str) -> dict[str, Any]:
    return {"type": kind, "items": {"type": "string"}} if kind == "array" else {"type": kind}
