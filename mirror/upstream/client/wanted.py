"""What a registry wants to be shown, by its challenges and the configuration. Without I/O.

Challenges are the registry's words. What they lead to is decided here: which of several is
answered, at which token realm, and whether that realm may see a login of the mirror's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from yarl import URL

from ...frozen import dataclass
from ...oci.challenges import Challenge
from ...oci.errors import quoted
from ...oci.registries import DOCKER_HUB, DOCKER_HUB_REALM, is_registry, parse_registry
from ..endpoint import Endpoint
from ..http.transport import origin

# Realms on another host that are known to belong to their registry, so that they may see its login.
_KNOWN_REALMS = {
    DOCKER_HUB: DOCKER_HUB_REALM,
    "registry.gitlab.com": "https://gitlab.com",
}
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,8192}")
_LONGEST_SERVICE = 1024  # characters


@dataclass(frozen=True, slots=True)
class Basic:
    """A name and password with each request (RFC 7617)."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that the realm gives for this service. `scope`: what the challenge names."""

    realm: URL
    service: str = ""
    scope: str = ""


Wanted = Basic | Bearer


@dataclass(frozen=True, slots=True)
class Demands:
    """How one registry's challenges are read. `registry`: its origin. `realm`: the one token realm
    that the configuration names; None: it names none."""

    registry: URL
    realm: URL | None = None

    @classmethod
    def of(cls, endpoint: Endpoint) -> Demands:
        realm = endpoint.logins.realm
        return cls(URL(endpoint.url).origin(), URL(realm) if realm else None)

    def chosen(self, challenges: Sequence[Challenge], has_login: bool) -> Wanted | None:
        """The challenge that is answered; None when none of them can be.

        Bearer goes before Basic, as with containerd: a token tells the registry less than a
        password. Where the realm may not see the login and the registry itself takes it as Basic,
        that is answered, since only with the login more can be read.
        """
        bearers = [bearer for one in challenges if (bearer := self._bearer(one)) is not None]
        basic = next((Basic() for one in challenges if one.scheme == "basic"), None)
        if has_login:
            entitled = next((one for one in bearers if self.may_see_login(one.realm)), None)
            return entitled or basic or next(iter(bearers), None)
        return next(iter(bearers), basic)

    def may_see_login(self, realm: URL) -> bool:
        """Whether this realm may see the login. It may when the configuration names it, when it is
        on the registry's own host, or known as the registry's; and never over http where the
        registry is asked over https, however it came to be named."""
        return not self.why_withheld(realm)

    def why_withheld(self, realm: URL) -> str:
        """Why this realm may not see the login, and what to do, in words; "" when it may."""
        if not (
            realm.host == self.registry.host
            or self._is_known(realm)
            or (self.realm is not None and origin(realm) == origin(self.realm))
        ):
            return (
                "the token realm is on another host than the registry; write "
                f"realm: {self.to_write(realm)} if it may see the login"
            )
        if self.registry.scheme == "https" and realm.scheme != "https":
            return (
                "the token realm is not https, as the registry is, and a login does not go there; "
                f"write realm: {self.to_write(realm)} if it is there too"
            )
        return ""

    def _is_known(self, realm: URL) -> bool:
        host = self.registry.host or ""
        known = _KNOWN_REALMS.get(parse_registry(host)) if is_registry(host) else None
        return origin(realm) == known

    def to_write(self, realm: URL) -> str:
        """What the configuration may name in place of this realm. TLS that ends at a proxy before
        the registry hides from it by which scheme and port clients come."""
        place = realm.origin()
        if self.registry.scheme == "https" and realm.scheme != "https":
            is_own = realm.host == self.registry.host
            place = self.registry if is_own else place.with_port(None).with_scheme("https")
        return quoted(f"{origin(place)}{realm.path}", 200).strip("'")

    def _bearer(self, challenge: Challenge) -> Bearer | None:
        """The challenge with the realm that is asked; None when it names none that could be."""
        if challenge.scheme != "bearer":
            return None
        given = challenge.parameters
        realm, service = self._realm(given.get("realm", "").strip()), given.get("service", "")
        if realm is None or len(service) > _LONGEST_SERVICE:
            return None
        return Bearer(realm, service, given.get("scope", ""))

    def _realm(self, named: str) -> URL | None:
        """The configured realm, whatever the challenge says: the registry may stand behind a proxy
        and not know its own name, or that clients come by https. Where the configured one has no
        path, it says which host is asked, and the challenge the path; and it has no query, which
        the challenge's has for the same path. But what is known of a registry needs no correction:
        Docker Hub may be one of several endpoints, and `realm` that of another."""
        realm, configured = self._parsed(named), self.realm
        if configured is None or (realm is not None and self._is_known(realm)):
            return realm
        if configured.path in ("", "/"):
            return configured.origin().join(realm.relative()) if realm is not None else None
        if realm is not None and realm.path == configured.path:
            return configured.with_query(realm.query)
        return configured

    def _parsed(self, named: str) -> URL | None:
        if not _PRINTABLE.fullmatch(named) or named.startswith("//"):
            return None
        try:
            # A path alone is one on the registry's own host.
            realm = self.registry.join(URL(named)) if named.startswith("/") else URL(named)
            realm = realm.with_user(None).with_fragment(None)
            usable = realm.scheme in ("http", "https") and bool(realm.host)
        except ValueError:
            return None
        return realm if usable else None
