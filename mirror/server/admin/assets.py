"""The page's scripts and styles, as they lie beside this module: read once, and told apart by their
bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    content_type: str
    tag: str


def _read() -> Mapping[str, _Asset]:
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:16]
            found[path.name] = _Asset(body, _TYPES[path.suffix], tag)
    return found


class Assets:
    """A URL made by `url` names the file's bytes, so that browsers may keep them for ever."""

    def __init__(self) -> None:
        self._found = _read()

    def url(self, name: str) -> str:
        return f"/static/{name}?v={self._found[name].tag}"

    async def answer(self, request: web.Request) -> web.Response:
        asset = self._found.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound(text="there is no such file\n")
        kept = _FOR_EVER if request.query.get("v") == asset.tag else "no-cache"
        headers = {hdrs.ETAG: f'"{asset.tag}"', hdrs.CACHE_CONTROL: kept}
        if any(tag.value in (asset.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = asset.content_type
        return web.Response(body=asset.body, headers=headers)
