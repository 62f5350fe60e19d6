"""What a certificate of the mirror's own says: for which names it is, and how long.

The standard library shows that of a peer's certificate alone. A certificate is DER (X.690), its
fields stand in the order of RFC 5280, section 4.1.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

from ..frozen import dataclass

_OBJECT, _UTC_TIME, _BOOLEAN = 0x06, 0x17, 0x01
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # [0] and [3] of the certificate
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # of a GeneralName
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")  # 2.5.29.17
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and addresses that clients may ask by, and when the certificate begins and ends."""

    names: Sequence[str]
    begins: datetime
    ends: datetime


def facts_of(text: str) -> Facts:
    """Those of the first certificate in this PEM text. Raises ValueError where it is none."""
    begin = text.index(_BEGIN)
    der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(_END, begin) + len(_END)])
    try:
        [(_, certificate)] = _elements(der)
        _, signed = next(_elements(certificate))
        fields = [field for field in _elements(signed) if field[0] != _VERSION]
        begins, ends = (_time(kind, value) for kind, value in _elements(fields[3][1]))
    except (IndexError, StopIteration) as error:
        raise ValueError("not a certificate") from error
    extensions = next((value for kind, value in fields[6:] if kind == _EXTENSIONS), b"")
    return Facts(list(_names(extensions)), begins, ends)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, contents) of what stands one behind the other. Raises ValueError or IndexError."""
    at = 0
    while at < len(data):
        kind, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:  # the length has so many bytes
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            raise ValueError("not a certificate")
        yield kind, data[at : at + length]
        at += length


def _names(extensions: bytes) -> Iterator[str]:
    for _, listed in _elements(extensions):
        for _, extension in _elements(listed):
            parts = [part for part in _elements(extension) if part[0] != _BOOLEAN]
            if len(parts) == 2 and parts[0] == (_OBJECT, _ALTERNATIVE_NAMES):
                for _, names in _elements(parts[1][1]):
                    yield from _general_names(names)


def _general_names(names: bytes) -> Iterator[str]:
    for kind, value in _elements(names):
        if kind == _DNS_NAME:
            yield value.decode("ascii", "replace")
        elif kind == _IP_ADDRESS and len(value) in (4, 16):
            yield str(ip_address(value))


def _time(kind: int, value: bytes) -> datetime:
    text = value.decode("ascii", "replace")
    if kind == _UTC_TIME:  # a year of two digits: RFC 5280, section 4.1.2.5.1
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
