"""How the certificates of upstreams, and of Redis, are verified."""

from __future__ import annotations

import ssl


def verifying_context() -> ssl.SSLContext:
    """A client's context: certificates and host names are verified, with the system's authorities,
    or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    return as_clients_do(ssl.create_default_context())


def as_clients_do(context: ssl.SSLContext) -> ssl.SSLContext:
    """Python 3.13 has begun to demand what RFC 5280 wants of certificates' forms, too, as an
    Authority Key Identifier. Many companies' own authorities do without it, and docker, containerd
    and podman (Go's crypto/x509) accept them: so does the mirror, on every Python."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
