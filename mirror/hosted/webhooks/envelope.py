"""What a receiver is sent: the envelope of CNCF Distribution's notifications, signed. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ...contracts.webhooks import Due, Subject
from ...frozen import dataclass

MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json"

_METHODS = {Subject.PUSH: "PUT", Subject.DELETE: "DELETE", Subject.FILL: "GET"}


@dataclass(frozen=True, slots=True)
class Source:
    """Who tells. `url`: what clients call the registry (`https://registry.corp.lan`), "" where
    nobody has said so; `address`: this host; `instance`: this process."""

    url: str
    address: str
    instance: str


def body_of(due: Due, source: Source) -> bytes:
    """One event in its envelope. A field that is not known is left out, but for those of `request`
    that Distribution's receivers may rely on."""
    happening = due.delivery.happening
    repository, digest = happening.repository, happening.digest
    target: dict[str, Any] = {}
    if happening.media_type:
        target["mediaType"] = happening.media_type
    if digest is not None:
        target["digest"] = str(digest)
    if happening.size:
        target |= {"size": happening.size, "length": happening.size}
    if repository:
        target["repository"] = repository
    is_here = happening.subject in (Subject.PUSH, Subject.DELETE)
    if is_here and digest is not None and source.url:
        target["url"] = f"{source.url}/v2/{repository}/manifests/{digest}"
    if happening.tag:
        target["tag"] = happening.tag
    event = {
        "id": due.delivery.id,
        "timestamp": _iso(happening.at),
        "action": str(happening.subject),
        "target": target,
        "request": {
            "id": "",
            "host": source.url.partition("://")[2],
            "method": _METHODS.get(happening.subject, ""),
            "useragent": "",
        },
        "actor": {"name": happening.by} if happening.by else {},
        "source": {"addr": source.address, "instanceID": source.instance},
    }
    return json.dumps({"events": [event]}, separators=(",", ":")).encode()


def headers_of(due: Due, body: bytes, now: float) -> Mapping[str, str]:
    """The signature is of the time, a point, and the body: who checks that the time is near needs
    not remember what was sent before. The delivery's id is the same in each attempt."""
    at = str(int(now))
    signed = hmac.new(due.secret.encode(), at.encode() + b"." + body, hashlib.sha256)
    return {
        "Content-Type": MEDIA_TYPE,
        "X-Registry-Delivery": due.delivery.id,
        "X-Registry-Event": str(due.delivery.happening.subject),
        "X-Registry-Attempt": str(due.delivery.attempts + 1),
        "X-Registry-Timestamp": at,
        "X-Registry-Signature": f"sha256={signed.hexdigest()}",
    }


def _iso(at: float) -> str:
    """RFC 3339, to the millisecond."""
    utc = datetime.fromtimestamp(at, UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
