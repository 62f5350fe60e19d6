"""Where an endpoint's registry is: by its URL, or, where that may mean two places, found by asking.

`https://host/a/b` may be a registry below that path (`/a/b/v2/<name>/…`, as Artifactory and Nexus
have them), or a prefix of its repositories' names (`/v2/a/b/<name>/…`, as Harbor and ECR have
them). A registry answers `GET /v2/` (distribution-spec, end-1), so both places are asked for that
when the endpoint is first asked for anything. Where that leaves it open, a path at which nothing
can be tells what the host says to any path: ECR challenges whatever it is asked, and so do proxies.
Where both places answer as registries, what is wanted is asked for at both, until one has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from yarl import URL

from ...asking.once_more import once_more_if_silent
from ...clock import Clock
from ...frozen import dataclass
from ...oci.challenges import Challenge, parse_challenges
from ...oci.errors import Denied, RegistryError, Unavailable, Untrustworthy
from ...oci.layout import Layout, layouts
from ...tasks import ended
from ..endpoint import Endpoint
from ..failures import PASSING, FailureKind, NoRegistry, Unreached, faulty
from ..http.transport import Transport, origin
from . import answers

_log = structlog.get_logger()

_NOWHERE = "/registry-mirror-asks-for-nothing"
# Seconds for which it is believed that no registry is there, or what was found in spite of trouble.
_BELIEVED = 5.0


@dataclass(frozen=True, slots=True)
class Site:
    """A registry at `origin` (scheme, host and port), as `layout` says."""

    origin: str
    layout: Layout

    @property
    def root(self) -> URL:
        """What answers whether a registry is there, and whether a login is good."""
        return URL(self.origin + self.layout.root, encoded=True)

    def url(self, repository: str, path: str) -> URL:
        """`path` of a repository, which is called as the registry calls it."""
        return URL(f"{self.origin}{self.layout.root}{repository}/{path}", encoded=True)


@dataclass(frozen=True, slots=True)
class Heard:
    """What was answered at one path. `look`: what answers at several paths have in common where
    the path does not matter. `trouble`: that answer may soon be another."""

    is_registry: bool
    look: tuple[object, ...]
    words: str
    trouble: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """`other`: where it may be as well. Not `for_good`: trouble had a part in it."""

    layout: Layout
    other: Layout | None = None
    for_good: bool = True

    @property
    def layouts(self) -> tuple[Layout, ...]:
        return (self.layout,) if self.other is None else (self.layout, self.other)


def heard(
    status: int,
    headers: Mapping[str, str],
    challenges: Sequence[Challenge],
    trouble: Unavailable | None = None,
) -> Heard:
    """What an answer says of its path. Web pages are none of a registry: consoles answer so to any
    path."""
    media_type, is_page = answers.media_type(headers), answers.is_page(headers)
    says_so = "Docker-Distribution-Api-Version" in headers
    schemes = {challenge.scheme for challenge in challenges}
    is_registry = (
        (status == HTTPStatus.OK and (says_so or not is_page))
        or (status == HTTPStatus.UNAUTHORIZED and (says_so or bool(schemes & {"bearer", "basic"})))
        or (status == HTTPStatus.FORBIDDEN and (says_so or media_type == "application/json"))
    )  # not of a 404: docker-registry says so to any path
    asked = frozenset(
        (one.scheme, one.parameters.get("realm"), one.parameters.get("service"))
        for one in challenges
    )
    words = "a web page" if status == HTTPStatus.OK and is_page else str(status)
    return Heard(is_registry, (status, media_type, says_so, asked), words, trouble)


def judged(
    before: Heard, behind: Heard, nowhere: Heard | None, possible: tuple[Layout, Layout]
) -> Found | None:
    """Where the registry is, by what was answered where the path stands before `/v2/`, at the
    root's `/v2/`, which is right where it stands behind, and at a path at which nothing is. None:
    undecided, also after the third question; nothing is there, or there is trouble.

    Both may answer: Artifactory does at its root for all its repositories. So the nearer one is the
    likelier, unless the host says the same to any path.
    """
    path_before, path_behind = possible
    if behind.is_registry and not before.is_registry and before.trouble is None:
        return Found(path_behind)
    if before.is_registry and not behind.is_registry and behind.trouble is None:
        return Found(path_before)
    if nowhere is None or not (before.is_registry or behind.is_registry):
        return None
    says_something = before.look != nowhere.look
    if before.is_registry and behind.is_registry:
        return Found(*(possible if says_something else reversed(possible)))
    if before.is_registry and says_something:
        return Found(path_before, for_good=nowhere.trouble is None)
    if behind.is_registry and not says_something:
        return Found(path_behind, for_good=False)
    return None


class Finder:
    """Knows where one endpoint's registry is, or finds out: one find at a time, shared by all that
    wait for it. Nobody shapes it, so there are no more of them however many ask. Close it."""

    def __init__(self, endpoint: Endpoint, transport: Transport, clock: Clock) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._clock = clock
        url = URL(endpoint.url, encoded=True)
        self._origin = origin(url)
        self._possible = layouts(url.path)
        self._known: tuple[Site, ...] | str | None = None  # in words: that none is there
        self._until = float("inf")  # monotonic: for how long that is believed
        self._finding: asyncio.Task[tuple[Site, ...] | RegistryError] | None = None
        if len(self._possible) == 1:
            self._known = (Site(self._origin, self._possible[0]),)

    async def close(self) -> None:
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.gather(self._finding, return_exceptions=True)

    async def site(self) -> Site:
        """As `sites`, the likelier one."""
        return (await self.sites())[0]

    def settle(self, site: Site) -> None:
        """What was wanted was there: no more need be found out."""
        if self._known != (site,):
            self._believe((site,))
        self._until = float("inf")

    async def sites(self) -> tuple[Site, ...]:
        """One, or the two where it may be, the likelier one first. Raises NoRegistry where none is
        there, and Unavailable when that cannot be told now: such trouble is not remembered."""
        known = self._known
        if isinstance(known, tuple) and self._clock.monotonic() < self._until:
            return known
        if isinstance(known, str) and self._clock.monotonic() < self._until:
            raise NoRegistry(known)
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._find())
        found = await asyncio.shield(self._finding)
        if isinstance(found, RegistryError):
            raise found.bare()
        return found

    def _believe(self, sites: tuple[Site, ...]) -> None:
        self._known = sites
        places = " or ".join(str(site.layout) for site in sites)
        _log.info("registry_found", endpoint=self._endpoint.name, at=places)

    async def _find(self) -> tuple[Site, ...] | RegistryError:
        seconds = self._endpoint.limits.waits.realm
        try:
            async with asyncio.timeout(seconds):
                found = await self._asked()
        except TimeoutError:
            words = (
                f"{self._endpoint.name}: whether a registry is there is not said in {seconds:g} s"
            )
            return Unreached(words, FailureKind.TIMEOUT)
        except NoRegistry as error:
            self._known, self._until = error.message, self._clock.monotonic() + _BELIEVED
            return error
        except RegistryError as error:
            return error
        sites = tuple(Site(self._origin, layout) for layout in found.layouts)
        self._until = float("inf") if found.for_good else self._clock.monotonic() + _BELIEVED
        self._believe(sites)
        return sites

    async def _asked(self) -> Found:
        before, behind = possible = self._possible[0], self._possible[-1]
        asks = [asyncio.create_task(self._ask(one.root)) for one in possible]
        try:
            at_path, at_root = await asyncio.gather(*asks)
        finally:
            for ask in asks:
                ask.cancel()
            await ended(asks)
        found = judged(at_path, at_root, None, possible)
        if found is None and (at_path.is_registry or at_root.is_registry):
            nowhere = await self._ask(_NOWHERE + before.root)
            found = judged(at_path, at_root, nowhere, possible)
        if found is not None:
            return found
        for one in (at_path, at_root):
            if one.trouble is not None:
                raise one.trouble
        raise NoRegistry(
            f"{self._endpoint.name}: no registry is there: {self._origin}{before.root} answered "
            f"{at_path.words}, and {self._origin}{behind.root} {at_root.words}. Write url: with "
            f"/v2/ where it stands, as in {self._origin}{behind}, or prefix:"
        )

    async def _ask(self, path: str) -> Heard:
        url, waits = URL(self._origin + path, encoded=True), self._endpoint.limits.waits

        async def ask() -> Heard:
            try:
                response = await self._transport.fetch("GET", url, {}, within=waits.realm)
            except (Untrustworthy, Denied) as error:  # a redirect that is not followed
                return Heard(False, (error.message,), f"so that {error.message}")
            await self._transport.discard(response)
            status, headers, trouble = response.status, response.headers, None
            if status >= 500 or status == 429 or status in PASSING:
                where = f"{self._endpoint.name}, at {origin(response.url)}{path},"
                trouble = faulty(where, status, headers, self._clock)
            lines = headers.getall("WWW-Authenticate", [])
            return heard(status, headers, parse_challenges(lines), trouble)

        return await once_more_if_silent(ask, waits.realm_silent)
