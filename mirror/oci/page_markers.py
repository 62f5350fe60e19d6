"""Where a tag list goes on, when only the registry understands the words of its link.

A registry's page leads to the next one by a Link header. Mostly its query is `last=<tag>`, which
every registry understands (distribution-spec, "Listing Tags"). Quay, Amazon's public registry and
others write words of their own there, of which nothing may be changed and which mean nothing to
another registry. The mirror hands them to the client in its own `last`, as a marker that is no tag:

    ~5f2c01ab.3.09d7be11.bmV4dF9wYWdlPWdBQUFBQUJZ

It begins with a character that no tag begins with. Clients bring it back unread, to whichever
worker: so all that is known of the list travels with it, and a client may have written it itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from typing import Self
from urllib.parse import unquote_plus

from ..frozen import dataclass
from .errors import BadRequest

MAX_QUERY = 5000
"""Characters: a request's line, which the marker is in, has 8190 at most."""

MOST_PAGES = 10_000
"""Of one list. Quay's pages have 50 tags at least."""

_MARK = "~"
_FORM = re.compile(
    r"~(?P<source>[0-9a-f]{8})\.(?P<page>[1-9][0-9]{0,5})\.(?P<milestone>[0-9a-f]{8})"
    r"\.(?P<query>[A-Za-z0-9_-]{2,6700})"
)
_QUERY = re.compile(rf"[\x21\x22\x24-\x7e]{{1,{MAX_QUERY}}}")  # not `#`: a fragment
# `ns` names another registry to an upstream that is a mirror itself.
_REGISTRY = re.compile(r"(?:\A|[&;?])ns(?:[=&;]|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageMarker:
    """`query` is the next page's, as the registry wrote it; `page` the number of pages before it;
    `source` stands for the endpoint that has to be asked. `milestone` stands for the query of an
    earlier page, by which a list that goes round in a circle is found out (Brent's algorithm)."""

    source: str
    page: int
    milestone: str
    query: str

    @classmethod
    def first(cls, endpoint: str, query: str) -> Self:
        """Leads to the second page of a list of this endpoint."""
        return cls(short(endpoint), 1, short(query), query)

    def following(self, query: str) -> Self:
        """Leads to the page after this one's."""
        page = self.page + 1
        is_power_of_two = page & (page - 1) == 0
        milestone = short(query) if is_power_of_two else self.milestone
        return replace(self, page=page, milestone=milestone, query=query)

    def was_before(self, query: str) -> bool:
        """Whether this query is known to have been asked in this list."""
        return query == self.query or short(query) == self.milestone

    def is_of(self, endpoint: str) -> bool:
        return self.source == short(endpoint)

    def __str__(self) -> str:
        query = base64.urlsafe_b64encode(self.query.encode("ascii")).rstrip(b"=").decode("ascii")
        return f"{_MARK}{self.source}.{self.page}.{self.milestone}.{query}"


def read_marker(last: str | None) -> PageMarker | None:
    """The marker that a client brought back as `last`; None for a tag, or nothing. Raises
    BadRequest for what begins as a marker and is none."""
    if last is None or not last.startswith(_MARK):
        return None
    form = _FORM.fullmatch(last)
    query = None if form is None else _decoded(form["query"])
    if form is None or query is None or not can_be_marked(query):
        raise BadRequest("last is no marker of this mirror's: begin the list anew, without it")
    return PageMarker(form["source"], int(form["page"]), form["milestone"], query)


def can_be_marked(query: str) -> bool:
    """Whether a registry may be asked for its list with this query, whoever wrote it."""
    meant = unquote_plus(query)
    is_plain = bool(_QUERY.fullmatch(query)) and meant.isprintable()
    return is_plain and not _REGISTRY.search(meant)


def short(text: str) -> str:
    """Eight characters that stand for this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _decoded(text: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError:
        return None
