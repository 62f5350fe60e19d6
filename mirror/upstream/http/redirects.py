"""Where a redirect leads, and what is shown there: pure."""

from __future__ import annotations

import re

from yarl import URL

from ...oci.errors import Untrustworthy
from .sessions import origin

MAX_HOPS = 10  # as Go's net/http, and with it container clients
REDIRECTS = frozenset((301, 302, 303, 307, 308))
_LOCATION = re.compile(r"[\x21-\x7e]+")


def target_of(name: str, url: URL, location: str | None) -> URL:
    """Where the answer of `url` leads. A login in it, and its fragment, are left out. Raises
    Untrustworthy, with the endpoint's name, where that is nowhere."""
    if not location:
        raise Untrustworthy(f"{name}: a redirect without Location from {origin(url)}")
    if not _LOCATION.fullmatch(location):
        raise Untrustworthy(f"{name}: a redirect from {origin(url)} with a broken Location")
    try:
        # `encoded`: a signed URL is signed as it is written.
        target = url.join(URL(location, encoded=True))
        target = target.with_user(None).with_fragment(None)
        if target.host and target.raw_host != target.host.lower():
            target = target.with_host(target.host.lower())
        usable = target.scheme in ("http", "https") and bool(target.host)
    except ValueError:
        raise Untrustworthy(
            f"{name}: a redirect from {origin(url)} with a broken Location"
        ) from None
    if not usable:
        raise Untrustworthy(f"{name}: a redirect from {origin(url)} to no http URL")
    return _over_tls(url, target)


def _over_tls(url: URL, target: URL) -> URL:
    """A registry behind a proxy that ends TLS names itself with http: what it means is where it
    was asked."""
    is_itself = target.host == url.host and target.port in (80, 443, url.port)
    if url.scheme == "https" and target.scheme == "http" and is_itself:
        return target.with_scheme("https").with_port(url.port)
    return target
