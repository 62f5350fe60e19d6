"""Which tokens are shown to one registry: for the scope that the mirror would write, and for the
one that the registry names where that is not enough."""

from __future__ import annotations

from cachetools import LRUCache
from yarl import URL

from ...contracts.context import Asker
from ...frozen import dataclass
from ...oci.errors import Denied
from ...oci.scopes import pull_of, reading
from ..failures import LoginRefused
from .tokens import Key, Tokens
from .wanted import Bearer

# Of the repositories whose scope is another than the mirror's own; one that is forgotten costs one
# request that is refused.
_MOST_SCOPES = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """What a registry is asked about: a repository, and which kind of thing there (manifests,
    blobs, tags, referrers)."""

    repository: str
    kind: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What goes along with one request. Of a token, `key` is what it is for; `refused` are the
    scopes whose tokens this request has shown in vain, `is_renewed` says that the token took the
    place of a refused one for the same scope."""

    authorization: str
    key: Key | None = None
    refused: frozenset[str] = frozenset()
    is_renewed: bool = False


class Negotiation:
    """Tokens for one registry, whose origin is `registry`."""

    def __init__(self, registry: URL, tokens: Tokens) -> None:
        self._registry = registry
        self._tokens = tokens
        self._scopes: LRUCache[Asked, str] = LRUCache(_MOST_SCOPES)
        self._is_odd = False  # whether this registry's scopes are others than the mirror's own

    async def usual(self, asker: Asker, wanted: Bearer, asked: Asked) -> Shown | None:
        """The token for this question by what is known so far; None where the registry has to be
        heard first, since its realm gives none for the mirror's own scope."""
        known = self._scopes.get(asked)
        key = self._tokens.key(self._registry, wanted, known or pull_of(asked.repository))
        try:
            return Shown(await self._tokens.authorization(asker, key), key)
        except LoginRefused:
            raise
        except Denied:
            if known is None and self._is_odd:
                return None
            raise

    async def better(
        self, asker: Asker, wanted: Bearer, asked: Asked, last: Shown | None
    ) -> Shown | None:
        """What to show after the registry has refused `last` with this challenge; None when there
        is nothing else. Within one request, each scope is tried once, and one token renewed."""
        if last is None or last.key is None:
            return await self._first(asker, wanted, asked, frozenset(), "")
        key, refused = last.key, last.refused | {last.key.scope}
        is_taken = self._tokens.is_accepted(key, asked.kind)
        if not last.is_renewed and (is_taken or not self._candidates(wanted, asked, refused)):
            renewed = await self._tokens.renewed(asker, key, last.authorization)
            if renewed is not None:
                return Shown(renewed, key, last.refused, is_renewed=True)
        if self._scopes.get(asked) == key.scope:
            del self._scopes[asked]
        return await self._first(asker, wanted, asked, refused, last.authorization)

    async def _first(
        self, asker: Asker, wanted: Bearer, asked: Asked, refused: frozenset[str], besides: str
    ) -> Shown | None:
        """A token other than `besides`, for the first scope that is not refused yet and that the
        realm gives one for."""
        denied: Denied | None = None
        for scope in self._candidates(wanted, asked, refused):
            key = self._tokens.key(self._registry, wanted, scope)
            try:
                authorization = await self._tokens.authorization(asker, key)
            except LoginRefused:
                raise
            except Denied as error:
                denied = denied or error
                authorization = besides
            if authorization == besides:
                refused |= {scope}
                continue
            if scope != pull_of(asked.repository):
                self._scopes[asked], self._is_odd = scope, True
            return Shown(authorization, key, refused)
        if denied is not None:
            raise denied
        return None

    def accepted(self, asked: Asked, shown: Shown) -> None:
        """The registry has taken this for an answer's sake."""
        if shown.key is not None:
            self._tokens.was_accepted(shown.key, shown.authorization, asked.kind)

    def _candidates(self, wanted: Bearer, asked: Asked, refused: frozenset[str]) -> list[str]:
        """The scopes that are still to be tried, the likeliest first.

        The mirror's own is what the specification says, and what dockerd asks for; a challenge's
        is the registry's own word, which containerd and skopeo follow. It goes first where it was
        the right one before."""
        own = pull_of(asked.repository) if asked.repository else ""
        has_login = bool(self._tokens.key(self._registry, wanted, own).account)
        named = reading(wanted.scope, opaque=not has_login)
        order = [named, own] if self._is_odd else [own, named]
        return [scope for scope in dict.fromkeys(order) if scope and scope not in refused]
