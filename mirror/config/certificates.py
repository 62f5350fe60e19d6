"""Certificates and keys: PEM files, read and proven when the configuration is.

What they hold is kept, not where they stand: a reload finds what was written anew. Each function
raises Mistake, which names the file and shows nothing of it.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from ..frozen import dataclass
from ..oci.errors import quoted
from ..secret_text import SecretStr
from ..tls import show_certificate
from .problems import Mistake
from .server_certificates import facts_of
from .values import text

_MAX_FILE = 4 * 2**20  # bytes; a system's bundle of all authorities has a quarter of a MiB
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type:.*ENCRYPTED", re.M)


@dataclass(frozen=True, slots=True)
class Pem:
    """A PEM file, and what stood in it."""

    file: Path
    text: SecretStr


def authorities(value: object) -> Pem:
    """Certificates that are trusted besides the system's: one or more, and no key."""
    write = "the path of a PEM file with the authority's certificate"
    file, data = _read(value, write)
    found = _certificates(file, data, write)
    if _KEY.search(data):
        raise Mistake(
            f"{_named(file)}, which has a private key in it",
            f"{write} alone: a key is nothing that others need",
        )
    _proven(file, found, write)
    return Pem(file, SecretStr(found))


def certificate(value: object) -> Pem:
    """What is shown as a client: its certificate first, then those that lead to its authority; the
    key may be in the same file."""
    write = "the path of a PEM file with the client's certificate"
    file, data = _read(value, write)
    _proven(file, _certificates(file, data, write), write)
    return Pem(file, SecretStr(data.decode("ascii", "replace")))


def server_certificate(value: object) -> Pem:
    """What is shown to clients: the certificate first, then those that lead to its authority; the
    key may be in the same file."""
    write = "the path of a PEM file with the mirror's certificate"
    file, data = _read(value, write)
    found = _certificates(file, data, write)
    _proven(file, found, write)
    try:
        names = facts_of(found).names
    except ValueError:
        raise Mistake(f"{_named(file)}, in which a certificate is damaged", write) from None
    if not names:  # a common name alone is refused by all that are written in Go
        raise Mistake(
            f"{_named(file)}, whose first certificate has no subject alternative name",
            "a certificate that names what clients ask by, as `openssl req -addext "
            "subjectAltName=DNS:mirror.lan` makes one",
        )
    return Pem(file, SecretStr(data.decode("ascii", "replace")))


def key(value: object) -> Pem:
    """A private key, without a passphrase: nobody is there to type it."""
    write = "the path of a PEM file with the certificate's private key"
    file, data = _read(value, write)
    if not _KEY.search(data):
        raise Mistake(f"{_named(file)}, which has no private key in it", write)
    _decrypted(file, data)
    return Pem(file, SecretStr(data.decode("ascii", "replace")))


def pair(certificate: Pem, key: Pem | None) -> SecretStr:
    """Certificates and key as one text, which a TLS library takes. Raises Mistake where they do not
    belong together."""
    shown = certificate.text.get_secret_value()
    if key is None:
        data = shown.encode()
        if not _KEY.search(data):
            raise Mistake(
                f"{_named(certificate.file)} without a private key in it, and no key",
                "key: too, with the path of a PEM file that has it",
            )
        _decrypted(certificate.file, data)
    elif _KEY.search(shown.encode()):  # of two keys the library would take the first
        shown = _certificates(certificate.file, shown.encode(), "")
    whole = SecretStr(shown if key is None else f"{shown}\n{key.text.get_secret_value()}")
    at = _named((key or certificate).file)
    try:
        show_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), whole)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            found = f"{at}, whose key is not that of the certificate in {certificate.file.name!r}"
            raise Mistake(found, "the key that belongs to the certificate") from None
        reason = (error.reason or "not readable").replace("_", " ").lower()
        found = f"{at} beside {certificate.file.name!r}: {reason}"
        raise Mistake(found, "a certificate and its key as PEM") from None
    return whole


def _decrypted(file: Path, data: bytes) -> None:
    if _ENCRYPTED.search(data):
        raise Mistake(
            f"{_named(file)}, whose key has a passphrase",
            "a file with the key without one, as `openssl pkey -in FILE -out FILE` makes it, that "
            "only the mirror's user can read",
        )


def _certificates(file: Path, data: bytes, write: str) -> str:
    """The certificates in it, without what stands around them."""
    found = _CERTIFICATE.findall(data)
    if found:
        return "\n".join(each.decode("ascii") for each in found) + "\n"
    if data[:1] == b"\x30":  # ASN.1's sign for what a certificate is, in its binary form
        how = f"{write}: `openssl x509 -inform der -in FILE` makes one of it"
        raise Mistake(f"{_named(file)}, which is DER, not PEM", how)
    what = "no certificate in it" if b"-----BEGIN " in data else "no PEM in it"
    raise Mistake(f"{_named(file)}, which has {what}", write)


def _proven(file: Path, certificates: str, write: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except ssl.SSLError:
        found = f"{_named(file)}, in which a certificate is damaged"
        raise Mistake(found, write) from None


def _named(file: Path) -> str:
    return quoted(str(file), 200)


def _read(value: object, write: str) -> tuple[Path, bytes]:
    given = text(value, write)
    if "-----BEGIN" in given:  # a key, perhaps
        raise Mistake("PEM itself", write)
    file = Path(os.path.expanduser(given))
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise Mistake(f"{_named(file)}: {reason}", write) from None
    if len(data) > _MAX_FILE:
        raise Mistake(f"{_named(file)}: more than {_MAX_FILE // 2**20} MiB", write)
    return file, data
