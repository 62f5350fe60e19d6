"""Requests of clients."""

from __future__ import annotations

from mirror.contracts.context import RequestContext
from mirror.oci.reference import Repository

REDIS = Repository("docker.io", "library/redis")


def request_of(client: str) -> RequestContext:
    """A request of this client's."""
    return RequestContext(request_id="of-a-test", client=client)


CONTEXT = request_of("")
"""A request, whoever's: for what does not depend on that."""
