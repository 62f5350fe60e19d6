"""The section `admin`: the port for operators."""

from __future__ import annotations

from typing import Annotated

from . import logins, places, values
from .logins import Secret
from .places import Address
from .section import Read, Section


class AdminConfig(Section):
    """`listen`: where it is. `write`: whether what is cached can be changed there. `token_file`: a
    secret that the page and the API are shown for; /metrics and what probes ask need none."""

    listen: Annotated[Address, Read(places.address)] = Address(places.LOOPBACK, 5001)
    write: Annotated[bool, Read(values.yes_or_no)] = False
    token_file: Annotated[Secret | None, Read(logins.admin_token_from_file)] = None


def admin_section(section: object) -> object:
    """An address is its one key. Raises Mistake where it is neither that nor a section."""
    if isinstance(section, dict):
        return section
    places.address(section)
    return {"listen": section}
