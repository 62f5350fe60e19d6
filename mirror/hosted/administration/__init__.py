"""What people do with repositories of one's own (see mirror/contracts/administration.py), over
what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...contracts.administration import NotAllowed
from ...contracts.context import RequestContext
from ...contracts.identity import AuditEntry, Passwords, Role
from ...contracts.registry import Deleter, Reader
from ...contracts.webhooks import WebhookRecords
from ...events import Events
from ...frozen import dataclass
from ...oci.reference import namespace_of
from . import names
from .gate import Gate
from .images import HostedImages
from .organisations import HostedOrganisations
from .repositories import HostedRepositories, Retention
from .robots import HostedRobots, HostedTokens
from .users import HostedUsers
from .webhooks import HostedWebhooks

__all__ = ["Gate", "HostedAdministration", "Hosting", "Retention"]


@dataclass(frozen=True, slots=True)
class Hosting:
    """What is administered: `registry` is the name that its repositories are given to others by,
    `reader` and `deleter` do what they are asked to, whoever asks."""

    registry: str
    reader: Reader
    deleter: Deleter
    events: Events
    retention: Retention


class HostedAdministration:
    def __init__(
        self,
        gate: Gate,
        hosting: Hosting,
        passwords: Passwords,
        webhooks: WebhookRecords,
        refused_webhook: Callable[[str], str | None],
    ) -> None:
        """See HostedWebhooks for `refused_webhook`."""
        self._gate = gate
        self.users = HostedUsers(gate, passwords)
        self.organisations = HostedOrganisations(gate)
        self.robots = HostedRobots(gate)
        self.tokens = HostedTokens(gate)
        self.repositories = HostedRepositories(
            gate, hosting.registry, hosting.events, hosting.retention
        )
        self.images = HostedImages(gate, hosting.registry, hosting.reader, hosting.deleter)
        self.webhooks = HostedWebhooks(gate, webhooks, refused_webhook)

    async def audit(
        self,
        context: RequestContext,
        count: int = 100,
        before: float | None = None,
        actor: str = "",
        target: str = "",
    ) -> Sequence[AuditEntry]:
        if not await self._gate.is_administrator(context):
            role = await self._gate.role(context, namespace_of(target)) if target else None
            if role is not Role.MAINTAINER:
                raise NotAllowed(
                    "this is for administrators, and of an organisation for its maintainers"
                )
        return await self._gate.log.entries(names.count(count), before, actor, target)
