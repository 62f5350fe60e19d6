"""Tokens by Docker's token specification: JWTs that say who somebody is, and what for.

A token adds no right: what its owner may is looked up when it is used. It stands for the login that
it was given for, and is worth nothing once that is: when the password is another, the robot or the
personal token is gone, the user is disabled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jwt

from ..contracts.context import Principal, PrincipalKind
from ..contracts.identity import IssuedToken
from ..frozen import dataclass
from ..oci.scopes import CATALOG
from .key_ring import TOKEN_LIFE, KeyRing

_ALGORITHM = "HS256"
_ISSUER = "registry-mirror"
_SKEW = 30.0  # seconds by which nodes' clocks may differ
_LONGEST = 65_536  # characters: more is none of ours
_REQUIRED = ("iss", "aud", "sub", "iat", "nbf", "exp")


@dataclass(frozen=True, slots=True)
class Proven:
    """A principal, and by what it was proven: a mark of the login, which is another when that is.
    "" for nobody's."""

    principal: Principal
    mark: str = ""


class Tokens:
    """Makes and reads them. `service`: whom they are for; one for another is none here."""

    def __init__(self, service: str, keys: KeyRing, wall: Callable[[], float]) -> None:
        self.service = service
        self._keys = keys
        self._wall = wall

    async def issue(self, proven: Proven, granted: Mapping[str, frozenset[str]]) -> IssuedToken:
        """Raises RegistryError where there is no key."""
        id, key = await self._keys.newest()
        now = self._wall()
        claims = {
            "iss": _ISSUER,
            "aud": self.service,
            "sub": proven.principal.name,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + TOKEN_LIFE,
            "access": [_access(name, granted[name]) for name in sorted(granted)],
            "kind": proven.principal.kind.value,
            "read_only": proven.principal.read_only,
            "mark": proven.mark,
        }
        token = jwt.encode(claims, key, _ALGORITHM, headers={"kid": id})
        return IssuedToken(token, TOKEN_LIFE, now)

    async def read(self, token: str) -> Proven | None:
        """What a token says; None for what is none, is over, or is for another service. Whether the
        login is still good is to be looked up."""
        if len(token) > _LONGEST or not token.isascii():
            return None
        try:
            header = jwt.get_unverified_header(token)
            id = header.get("kid")
            key = await self._keys.known(id) if isinstance(id, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=self.service,
                issuer=_ISSUER,
                options={
                    "require": list(_REQUIRED),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            now = self._wall()
            if not claims["nbf"] - _SKEW <= now < claims["exp"]:
                return None
            return _proven(claims)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
            return None


def _access(name: str, actions: frozenset[str]) -> dict[str, object]:
    if name == CATALOG:
        kind, _, name = CATALOG.partition(":")
        return {"type": kind, "name": name, "actions": sorted(actions)}
    return {"type": "repository", "name": name, "actions": sorted(actions)}


def _proven(claims: Mapping[str, Any]) -> Proven:
    scopes = frozenset(
        (each["name"] if each["type"] == "repository" else CATALOG, action)
        for each in claims["access"]
        for action in each["actions"]
    )
    name, kind, mark = claims["sub"], PrincipalKind(claims["kind"]), claims["mark"]
    if not isinstance(name, str) or not isinstance(mark, str):
        raise ValueError(claims)
    return Proven(Principal(name, kind, scopes, claims["read_only"] is not False), mark)
