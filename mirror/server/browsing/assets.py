"""Scripts and styles of pages: read once, and told apart by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiohttp import hdrs, web

from ...frozen import dataclass

SHARED = Path(__file__).parent / "static"
"""Those that all pages have in common."""

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


def _read(folders: Sequence[Path]) -> Mapping[str, _Asset]:
    found = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:16]
            found[path.name] = _Asset(body, _TYPES[path.suffix], tag)
    return found


class Assets:
    """The shared files and those of `folder`. A URL made by `url` names the file's bytes, so that
    browsers may keep them for ever."""

    def __init__(self, folder: Path) -> None:
        self._found = _read((SHARED, folder))

    def url(self, name: str) -> str:
        return f"/static/{name}?v={self._found[name].tag}"

    def answer(
        self, request: web.BaseRequest, name: str, version: str | None
    ) -> web.Response | None:
        """`version`: what the URL's query says; None when there is no such file."""
        asset = self._found.get(name)
        if asset is None:
            return None
        kept = _FOR_EVER if version == asset.tag else "no-cache"
        headers = {hdrs.ETAG: f'"{asset.tag}"', hdrs.CACHE_CONTROL: kept}
        if any(tag.value in (asset.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = asset.content_type
        return web.Response(body=asset.body, headers=headers)
