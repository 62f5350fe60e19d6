"""What an artifact that refers to an image is, in a word, by its type."""

from __future__ import annotations

_KINDS = (
    ("signature", ("cosign.artifact.sig", "cosign.simplesigning", "notary.signature", "sigstore")),
    ("SBOM", ("spdx", "cyclonedx", "syft", "sbom")),
    ("attestation", ("in-toto", "dsse", "attest", "provenance", "slsa")),
)


def kind(artifact_type: str | None) -> str:
    """
    >>> kind("application/vnd.dev.sigstore.bundle.v0.3+json"), kind("application/spdx+json")
    ('signature', 'SBOM')
    >>> kind("application/vnd.in-toto+json"), kind("text/plain"), kind(None)
    ('attestation', 'artifact', 'artifact')
    """
    words = (artifact_type or "").lower()
    for name, parts in _KINDS:
        if any(part in words for part in parts):
            return name
    return "artifact"
