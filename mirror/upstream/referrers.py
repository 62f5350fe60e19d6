"""Lists of referrers (distribution-spec, "Listing Referrers"): whole, and filtered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..interfaces import BytesContent, Outcome
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.manifests import OCI_INDEX

MOST_PAGES = 50


def together(pages: Sequence[bytes], artifact_type: str | None) -> BytesContent:
    """One list of all these, which are OCI indexes. Who wants one type of artifact gets no other:
    a registry need not filter, and a client that believes it was done does not."""
    document = json.loads(pages[0])
    entries = [entry for page in pages for entry in json.loads(page).get("manifests") or ()]
    wanted = [entry for entry in entries if _is_of(entry, artifact_type)]
    data = pages[0]
    if len(pages) > 1 or len(wanted) < len(entries):
        data = json.dumps({**document, "manifests": wanted}).encode()
    return BytesContent(Descriptor(OCI_INDEX, Digest.of(data), len(data)), data, Outcome.PASSED)


def _is_of(entry: dict[str, Any], artifact_type: str | None) -> bool:
    return artifact_type is None or entry.get("artifactType") == artifact_type
