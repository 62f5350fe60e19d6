"""What browsers are told of a page, and which of their requests other sites have caused."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from aiohttp import hdrs

from .failures import Refused

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer a form's Origin is null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer that a browser may show. A page has no script, style or picture that is not a
file of its own; names in it come from strangers."""


def refuse_other_sites(headers: Mapping[str, str], *allowed: str) -> None:
    """Raises Refused for what a page of another site has asked for. `allowed`: what Sec-Fetch-Site
    may say besides."""
    site = headers.get("Sec-Fetch-Site", "same-origin").strip(" \t").lower()
    origin = headers.get(hdrs.ORIGIN)
    own = headers.get(hdrs.HOST, "")
    if site not in ("same-origin", *allowed) or (
        origin is not None and origin.partition("://")[2] != own
    ):
        raise Refused(403, "OTHER_SITE", "pages of other sites may not ask here")


def same(shown: str, wanted: str) -> bool:
    """In a time that says nothing of how much of it is right."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), wanted.encode())
