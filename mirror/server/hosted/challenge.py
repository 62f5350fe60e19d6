"""How a client is told where to log in (WWW-Authenticate; RFC 6750, 3, and Docker's token
specification)."""

from __future__ import annotations

import re

from .serving import Challenge

REALM = "token"
"""The first part of the realm's path."""

_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")  # RFC 9110, 5.6.4: anything else would need escapes


def bearer(service: str) -> Challenge:
    """Challenges for tokens of this service."""

    def challenge(scope: str, origin: str, error: str) -> str:
        values = {
            "realm": f"{origin}/{REALM}",
            "service": service,
            "scope": scope,
            "error": error,
        }
        return "Bearer " + ",".join(
            f'{name}="{_UNQUOTABLE.sub("", value)}"' for name, value in values.items() if value
        )

    return challenge
