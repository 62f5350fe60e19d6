"""The lists of one endpoint, page by page: tags, and referrers."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import aiohttp
import structlog

from ...contracts.context import Asker
from ...contracts.registry import TagPage
from ...oci import referrers
from ...oci.digest import Digest
from ...oci.errors import Denied, ManifestUnknown, NameUnknown, Refused, Unknown, Untrustworthy
from ...oci.manifests import OCI_INDEX
from ...oci.page_markers import MAX_QUERY, MOST_PAGES, PageMarker, can_be_marked, read_marker
from ...oci.reference import Repository
from ...threads import aside, read_aside
from ..endpoint import MIB, Endpoint
from ..failures import Unfit
from . import answers
from .manifests import Manifests, manifest_request
from .referred import asked_at
from .requests import Request, Requests

_log = structlog.get_logger()

_MAX_LIST = 16 * MIB
_ACCEPT_JSON = {"Accept": "application/json"}
# How registries say that a page would be too long, and how long it may be. Amazon's and GitLab's
# give 1000 at most.
_TOO_MANY = frozenset((400, 405, 413, 416, 422))
_SMALLER = (1000, 100)


class Lists:
    """See the module. A link to a next page is followed by its query alone, at the path of the
    first page: registries behind a proxy name hosts and paths that only they know, and no login is
    shown elsewhere."""

    def __init__(self, endpoint: Endpoint, requests: Requests, manifests: Manifests) -> None:
        self._endpoint = endpoint
        self._requests = requests
        self._manifests = manifests

    async def tags(
        self, asker: Asker, repository: Repository, count: int | None, last: str | None
    ) -> TagPage:
        """One page. `last` is a tag, or a marker that this endpoint has made."""
        marker, name = read_marker(last), self._endpoint.name
        if marker is not None and marker.page > MOST_PAGES:
            raise Untrustworthy(f"{name}: the tag list has more than {MOST_PAGES} pages")
        if marker is not None:
            data, links = await self._page(asker, repository, marker.query, frozenset())
        else:
            data, links = await self._first_page(asker, repository, count, last)
        try:
            tags = await read_aside(answers.tag_names, data)
        except Untrustworthy as error:
            raise Untrustworthy(f"{name}: {error.message}") from error
        return TagPage(tags, self._next(links, tags, last, marker))

    async def _first_page(
        self, asker: Asker, repository: Repository, count: int | None, last: str | None
    ) -> tuple[bytes, Sequence[str]]:
        """Of a list, or of what is behind a tag. A registry that refuses so many is asked for
        less, and then for as many as it gives by itself."""
        name = self._endpoint.name
        refused: Refused | None = None
        after = {} if last is None else {"last": last}
        counts = [] if count is None else [count, *(few for few in _SMALLER if few < count)]
        for number in counts:
            query = urlencode({"n": number, **after})
            try:
                return await self._page(asker, repository, query, _TOO_MANY)
            except _TooManyError as error:
                refused = Refused(f"{name} does not take this request ({error.status})")
                _log.info(
                    "tags_asked_for_in_less", endpoint=name, count=number, status=error.status
                )
        try:
            return await self._page(asker, repository, urlencode(after), frozenset())
        except (Unknown, Denied):
            if refused is None:
                raise
            raise refused from None

    async def _page(
        self, asker: Asker, repository: Repository, query: str, too_many: frozenset[int]
    ) -> tuple[bytes, Sequence[str]]:
        """A page's body and its Link lines. Raises _TooManyError for these statuses."""
        path = f"tags/list?{query}" if query else "tags/list"
        request = Request(
            "GET",
            repository,
            path,
            _ACCEPT_JSON,
            lambda response: response.status == 200 or response.status in too_many,
            NameUnknown,
        )
        response = await self._requests.send(asker, request)
        if response.status in too_many:
            await self._manifests.discard(response)
            raise _TooManyError(response.status)
        data = await self._manifests.body(asker, response, _MAX_LIST)
        return data, response.headers.getall("Link", [])

    def _next(
        self,
        links: Sequence[str],
        tags: Sequence[str],
        last: str | None,
        marker: PageMarker | None,
    ) -> str | None:
        """The `last` of the next page; None at the end, which is also where a page leads to
        itself: it would be asked for for ever."""
        query = answers.next_query(links)
        if query is None:
            return None
        name = self._endpoint.name
        tag = answers.tag_to_go_on_after(query, tags)
        if tag is None and len(query) > MAX_QUERY:
            raise Untrustworthy(f"{name}: the link to the next page of tags is too long")
        if tag is None and not can_be_marked(query):
            tag = tags[-1] if tags else None
        elif tag is None and marker is None:
            return str(PageMarker.first(name, query))
        elif tag is None and marker is not None and query != marker.query:
            if marker.was_before(query):
                raise Untrustworthy(f"{name}: the pages of the tag list lead round in a circle")
            return str(marker.following(query))
        if tag is None or tag == last:
            _log.warning("tag_list_leads_to_itself", endpoint=name)
            return None
        return tag

    async def referrers(self, asker: Asker, repository: Repository, digest: Digest) -> bytes:
        """From the referrers API, all its pages, else from the fallback tag (distribution-spec,
        "Referrers Tag Schema")."""
        try:
            pages = await self._referrer_pages(asker, repository, digest, f"referrers/{digest}")
        except (Unknown, Refused):  # the registry has no such API
            path = f"manifests/{referrers.fallback_tag(digest)}"
            try:
                pages = await self._referrer_pages(asker, repository, digest, path)
            except Unfit as error:  # anybody who may push can give that tag to anything
                raise ManifestUnknown(error.message) from error
        return await aside(referrers.together, pages)

    async def _referrer_pages(
        self, asker: Asker, repository: Repository, subject: Digest, path: str
    ) -> list[bytes]:
        name = self._endpoint.name
        pages: list[bytes] = []
        asked = {""}
        query, left = "", self._endpoint.limits.manifest
        while True:
            where = f"{path}?{query}" if query else path
            response = await self._requests.send(
                asker, manifest_request("GET", repository, where, self._is_list_or_page)
            )
            if self._is_page(response):
                await self._manifests.discard(response)
                raise ManifestUnknown(f"{name} answers with a page in place of the referrers")
            content = await self._manifests.read(asker, response, None)
            if content.descriptor.media_type != OCI_INDEX:
                raise Unfit(f"{name}: the referrers are no OCI index")
            if content.descriptor.digest == subject:
                raise Unfit(f"{name} takes the tag of the referrers for the digest itself")
            left -= len(content.data)
            if left < 0 or len(pages) == referrers.MOST_PAGES:
                raise Unfit(f"{name}: more referrers than are taken")
            pages.append(content.data)
            query = answers.next_query(response.headers.getall("Link", [])) or ""
            if query in asked:
                return pages
            asked.add(query)

    def _is_list_or_page(self, response: aiohttp.ClientResponse) -> bool:
        return response.status == 200 or self._is_page(response)

    def _is_page(self, response: aiohttp.ClientResponse) -> bool:
        """Whether this is one for people, whatever it says: ghcr.io, which has no list of
        referrers, redirects to its site, which may limit, refuse, or ask to sign in."""
        is_html = answers.media_type(response.headers) == "text/html"
        is_of_a_site = (
            self._requests.is_elsewhere(response) and not asked_at(response.url).repository
        )
        return is_html if response.status == 200 else is_of_a_site


class _TooManyError(Exception):
    """The endpoint gives no page of so many tags."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
