"""The section `hosted: webhooks`: where they may go."""

from __future__ import annotations

from typing import Annotated

from . import certificates, places
from .certificates import Pem
from .places import Network
from .section import Read, Section, or_none_listed


class WebhooksConfig(Section):
    """`allow_private`: networks, and host names in lower case, that are not public and that users
    may have told all the same. `ca_file`: trusted besides the system's."""

    allow_private: Annotated[
        tuple[Annotated[Network | str, Read(places.private_place)], ...],
        Read(or_none_listed),
    ] = ()
    ca_file: Annotated[Pem | None, Read(certificates.authorities)] = None
