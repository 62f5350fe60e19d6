"""How the certificates of others are verified (upstreams, Redis, clients), and what is shown of
ours."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import Any

from .secret_text import SecretStr


@contextlib.contextmanager
def no_authorities() -> Iterator[None]:
    """Contexts that are made within know none, and so trust nobody; reading the system's takes some
    thirty milliseconds each. aiohttp makes two when it is imported, for whoever gives it none."""
    context: Any = ssl.SSLContext
    read = context.set_default_verify_paths
    context.set_default_verify_paths = lambda _: None
    try:
        yield
    finally:
        context.set_default_verify_paths = read


def verifying_context(authorities: str = "", shown: SecretStr | None = None) -> ssl.SSLContext:
    """A client's context: certificates and host names are verified, with the system's authorities,
    or those of SSL_CERT_FILE and SSL_CERT_DIR, and with `authorities` (PEM) besides. `shown` is
    our own certificate with its key, for whoever asks for one."""
    context = as_clients_do(ssl.create_default_context())
    if authorities:
        context.load_verify_locations(cadata=authorities)
    if shown is not None:
        show_certificate(context, shown)
    return context


def serving_context(shown: SecretStr, client_authorities: str | None = None) -> ssl.SSLContext:
    """A server's context: shows this certificate, whose key stands behind it. With
    `client_authorities` (PEM) a client has to show a certificate by one of them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client's way to make a server compute
    context.num_tickets = 1  # that a client can go on by: each takes 50 µs to make, and TLS has two
    context.set_alpn_protocols(["http/1.1"])
    show_certificate(context, shown)
    if client_authorities is not None:
        context.load_verify_locations(cadata=client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        as_clients_do(context)
    return context


def as_clients_do(context: ssl.SSLContext) -> ssl.SSLContext:
    """Docker, containerd and podman verify with Go's crypto/x509; so does the mirror, on every
    Python. Python 3.13 has begun to demand what RFC 5280 wants of certificates' forms, too, as an
    Authority Key Identifier, without which many companies' own authorities do. And it has begun to
    take for an authority what it was given as one, also a server's own or an intermediate
    certificate."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def show_certificate(context: ssl.SSLContext, shown: SecretStr) -> None:
    """Certificates and their key (PEM), for servers that ask for them. Raises ssl.SSLError.

    The library takes them from files alone: this one is in memory, and nobody else can open it.
    """
    file = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as written:
            written.write(shown.get_secret_value().encode())
        # A passphrase would be asked for on the terminal, if there is one.
        context.load_cert_chain(f"/proc/self/fd/{file}", password=lambda: "")
    finally:
        os.close(file)
