"""The keys `listen`, `tls` and `client`: where clients ask, and what the mirror shows to them and
to others."""

from __future__ import annotations

from typing import Annotated, Any

from ..secret_text import SecretStr
from . import certificates, places, values
from .certificates import Pem
from .places import Address
from .problems import Mistake
from .section import Read, Section, read_section
from .server_certificates import Facts, facts_of


class ListenConfig(Section):
    """One address. `tls` false: it speaks plain HTTP, whatever the section `tls` says."""

    address: Annotated[Address, Read(places.address)]
    tls: Annotated[bool, Read(values.yes_or_no)] = True

    def __str__(self) -> str:
        return str(self.address)


def at(address: str) -> ListenConfig:
    """That address, which speaks TLS where the mirror does. Raises Unreadable."""
    return read_section(ListenConfig, {"address": address})


def listen_list(given: object) -> list[Any]:
    """One address, or several; each of them alone, or as a section of its own."""
    items = given if isinstance(given, list) else [given]
    if not items:
        raise Mistake("an empty list", "- 127.0.0.1:5000 below it, or leave it out")
    return [item if isinstance(item, dict) else _bare(item) for item in items]


def _bare(item: object) -> object:
    """Raises Mistake here, so that the place of it is the item's own."""
    places.address(item)
    return {"address": item}


class TlsConfig(Section):
    """What the mirror shows to its clients. `client_ca`: whose certificates a client has to show,
    None: nobody's. Use `pem`."""

    cert: Annotated[Pem, Read(certificates.server_certificate)]
    key: Annotated[Pem | None, Read(certificates.key)] = None
    client_ca: Annotated[Pem | None, Read(certificates.authorities)] = None

    @property
    def pem(self) -> SecretStr:
        """Certificate and key."""
        return certificates.pair(self.cert, self.key)

    @property
    def facts(self) -> Facts:
        """What the certificate says."""
        return facts_of(self.cert.text.get_secret_value())


class ClientConfig(Section):
    """The certificate that is shown to an endpoint, or a node, that asks for one. Use `pem`."""

    cert: Annotated[Pem, Read(certificates.certificate)]
    key: Annotated[Pem | None, Read(certificates.key)] = None

    @property
    def pem(self) -> SecretStr:
        """Certificate and key."""
        return certificates.pair(self.cert, self.key)
