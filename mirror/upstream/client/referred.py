"""Registries to which an endpoint redirects, and which have a challenge of their own, as lscr.io
does to ghcr.io. It is answered anonymously: no login is for a host that a redirect names."""

from __future__ import annotations

import re

import aiohttp
from cachetools import LRUCache
from yarl import URL

from ...contracts.context import Asker
from ...oci.challenges import parse_challenges
from ..http.transport import origin
from .negotiation import Asked, Negotiation, Shown
from .tokens import Tokens
from .wanted import Bearer, Demands

_MOST = 16
# The path is of another's making, and the name in it becomes the scope of a token.
_API = re.compile(r"/v2/(?P<name>[!-~]{1,255})/(?P<kind>manifests|blobs|tags|referrers)/[^/]+")


class Referred:
    """What is known of them. `tokens` are those of no login. Of more than 16 the longest unused is
    forgotten, which costs one request that is refused."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._known: LRUCache[str, tuple[Bearer, Negotiation]] = LRUCache(_MOST)

    def passage(self, asker: Asker) -> Passage:
        """For one request."""
        return Passage(self, asker)

    def known(self, url: URL) -> tuple[Bearer, Negotiation] | None:
        return self._known.get(origin(url))

    def learn(self, response: aiohttp.ClientResponse) -> tuple[Bearer, Negotiation] | None:
        """What this answer asks for; None when it is nothing that anybody may have."""
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        at = response.url.origin()
        wanted = Demands(at).chosen(challenges, has_login=False)
        if not isinstance(wanted, Bearer):
            return None
        before = self.known(at)
        negotiation = before[1] if before is not None else Negotiation(at, self._tokens)
        self._known[origin(at)] = wanted, negotiation
        return wanted, negotiation


class Passage:
    """What one request shows on its way, to hosts that are not the endpoint's."""

    def __init__(self, referred: Referred, asker: Asker) -> None:
        self._referred = referred
        self._asker = asker
        self._shown: dict[str, tuple[Asked, Shown]] = {}

    async def authorization(self, url: URL) -> str | None:
        """What to show there, by what is known so far: nothing to a host that has not asked for it,
        such as one that has blobs, nor elsewhere on one that has."""
        known, asked = self._referred.known(url), asked_at(url)
        if known is None or not asked.repository:
            return None
        wanted, negotiation = known
        return self._note(url, await negotiation.usual(self._asker, wanted, asked))

    async def answer(self, response: aiohttp.ClientResponse) -> str | None:
        """What to show to the host of this answer, instead; None when there is nothing else."""
        at = origin(response.url)
        for place, (asked, shown) in self._shown.items():
            known = self._referred.known(URL(place))
            is_taken = place != at or response.status not in (401, 403)
            if known is not None and is_taken:  # a registry that redirects has taken it, too
                known[1].accepted(asked, shown)
        if response.status not in (401, 403):
            return None
        known = self._referred.learn(response)
        if known is None:
            return None
        wanted, negotiation = known
        _, last = self._shown.get(at, (None, None))
        other = await negotiation.better(self._asker, wanted, asked_at(response.url), last)
        return self._note(response.url, other)

    def _note(self, url: URL, shown: Shown | None) -> str | None:
        if shown is None:
            return None
        self._shown[origin(url)] = asked_at(url), shown
        return shown.authorization


def asked_at(url: URL) -> Asked:
    """What is asked there; of no repository, where the path is none of a registry's."""
    match = _API.fullmatch(url.path)
    return Asked(match["name"], match["kind"]) if match is not None else Asked("", "")
