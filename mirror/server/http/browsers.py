"""Web pages that ask here by way of their reader's browser: refused.

The mirror's port has no login. Who may read private images through it is decided by who can connect
to it: on the default address, the programs of this machine. A browser is one of them, and any page
it shows may have it send requests. Two kinds of them are refused, with 403:

- What a browser itself marks as asked by another site's page: `Origin` (sent with every request
  whose answer a page of another site would be allowed to read), and a `Sec-Fetch-Site` that is
  neither `none` (a person typed the address) nor `same-origin`.
- What comes by a loopback address from a browser that was told a name of another machine. A page
  can make its own name point to 127.0.0.1 after it was loaded (DNS rebinding). To the browser this
  mirror is then the page's own site, and nothing above is sent; but Host still says that name. Not
  every such Host is refused, since a reverse proxy on this machine passes on the name by which it
  was asked itself; only that of a browser, which betrays itself by `Accept-Language`, a field that
  a page can change and cannot leave out, or by a User-Agent that begins with `Mozilla/`.

Container clients send none of these fields: neither dockerd, containerd, podman, skopeo and
BuildKit, nor curl and the clients that are made with Go's, Java's and Python's usual libraries. At
other addresses than loopback a name says nothing, as this process does not know which names others
have for this machine; whoever may connect there may read (see `listen` in mirror.yaml).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from aiohttp import hdrs
from yarl import URL

from ...oci.errors import Denied

_OWN_SITES = ("none", "same-origin")
BROWSER = "Mozilla/"


def refuse_pages(headers: Mapping[str, str], own_address: str) -> None:
    """Raises Denied for a request that a page on another site has caused, by its headers and by the
    address of this machine that it came to ("" where that is not known)."""
    site = headers.get("Sec-Fetch-Site", "none").strip(" \t").lower()
    if hdrs.ORIGIN in headers or site not in _OWN_SITES:
        raise Denied("web pages may not ask here (the request has Origin or Sec-Fetch-Site)")
    if is_browser(headers) and is_loopback(own_address) and not names_loopback(headers):
        raise Denied(
            "a browser on this machine may ask by localhost or 127.0.0.1 only, and the Host header "
            "names another machine"
        )


def is_browser(headers: Mapping[str, str]) -> bool:
    agent = headers.get(hdrs.USER_AGENT, "")
    return hdrs.ACCEPT_LANGUAGE in headers or agent.startswith(BROWSER)


def names_loopback(headers: Mapping[str, str]) -> bool:
    """Whether Host can only mean this machine."""
    return is_loopback_url(f"http://{headers.get(hdrs.HOST, '')}")


def is_loopback_url(url: str) -> bool:
    try:
        host = URL(url).host
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a name or address, without a port, can only mean this machine.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("localhost.example.org")
    (True, True, False)
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
