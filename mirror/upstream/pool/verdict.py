"""Which of several endpoints' errors is the registry's answer: pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...oci.errors import Denied, RegistryError, Unavailable, Unknown
from ..endpoint import Trust
from .endpoint_state import EndpointState

Errors = Sequence[tuple[EndpointState, RegistryError]]


def verdict(errors: Errors) -> RegistryError:
    """The error to raise, where these endpoints, at least one, have failed with these errors.

    That something does not exist, or may not be read, is final only from endpoints that must know
    it: those trusted with tags, or all where there are none. An accelerator that lacks something
    says nothing of the registry; a registry that was not reached may still have it.
    """
    trusted = [error for endpoint, error in errors if endpoint.member.trust is Trust.TAGS]
    words = trusted or [error for _, error in errors]
    open_ends = [error for error in words if not isinstance(error, Unknown | Denied)]
    if open_ends:
        # An endpoint that answered wrong will do so again; a silent one may be back soon.
        missed = [error for error in open_ends if isinstance(error, Unavailable)]
        return min(missed or open_ends, key=_retry_after)
    return next((error for error in words if isinstance(error, Unknown)), words[0])


def _retry_after(error: RegistryError) -> float:
    return (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
