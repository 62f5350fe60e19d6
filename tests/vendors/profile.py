"""What tells one registry from another, as far as those see it who pull from it.

The texts of challenges and links are templates, filled by `str.format`:

    {host}      the registry's host and port
    {root}      http://{host}
    {realm}     the token realm's URL
    {name}      the repository, with its project, as it stands in the URL
    {own}       the repository without its project
    {n} {last} {page} {end}  in links: the page's size, its last tag, an opaque name of the next
                page, how many tags came so far
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

PULL = "repository:{name}:pull"


@dataclass(frozen=True)
class Login:
    """What the registry knows its reader by. `kind`: how mirror.yaml says it."""

    username: str
    secret: str = "correct-horse-battery"
    kind: str = "password_file"  # or identity_token_file


@dataclass(frozen=True)
class Realm:
    """Where tokens are given."""

    path: str
    elsewhere: bool = False  # on a host of its own
    service: str = ""  # the one that it demands; "": none is looked at
    scoped: bool = True  # a token is good for what it was asked for, alone
    fields: tuple[str, ...] = ("token",)  # which carry the token
    lifetime: int | None = 300  # seconds, as `expires_in`; None: it does not tell
    stranger: int = 200  # to the anonymous who ask for what is private; 200: a token for nothing
    anonymous: bool = True  # whether it gives tokens to the anonymous at all
    echoes: bool = False  # the password, which it checks, is the token
    posts: bool = False  # it takes Docker's OAuth 2 grants, too
    content_type: str = "application/json"


@dataclass(frozen=True)
class Challenge:
    """WWW-Authenticate. `ping`: at /v2/; None: that is open. `tags` and `expired`: where they
    differ from `repository`."""

    repository: str
    ping: str | None = ""
    tags: str = ""
    expired: str = ""
    tags_action: str = "pull"


@dataclass(frozen=True)
class Tags:
    """Lists of tags."""

    page: int = 0  # tags in a page that nobody has given a size; 0: all
    most: int = 0  # tags in a page, at most; 0: no such bound
    beyond: int = 0  # the status where more are asked for; 0: `most` of them
    link: str = '</v2/{name}/tags/list?last={last}&n={n}>; rel="next"'
    is_sorted: bool = True
    content_type: str = "application/json"
    is_open: bool = True  # False: there is no such list
    more: Mapping[str, Any] = field(default_factory=dict)  # beside `name` and `tags`


@dataclass(frozen=True)
class Manifests:
    """How manifests are answered; `head…`: to HEAD, where that differs from GET."""

    head: int = 200
    head_digest: bool = True
    head_type: str = ""
    strict_accept: bool = False  # an index is not there for those who do not accept one


@dataclass(frozen=True)
class Storage:
    """Where the bytes of blobs are. A login that is shown on another host is an error, as S3,
    Google and Azure have it."""

    status: int = 307  # of the redirect; 0: the registry sends the bytes itself
    head: bool = False  # HEAD is redirected too
    by_method: bool = True  # a signed URL is good for the method that it was made for
    path: str = ""  # on the registry's own host, below this path; "": on another host
    signature: int = 900  # characters of the query
    refusal: int = 400  # of a login


class Referrers(Enum):
    API = auto()
    TAG = auto()  # no such API: the fallback tag has them
    PAGE = auto()  # as TAG, and who asks for the API is sent to a page for people
    NOWHERE = auto()  # as TAG, but a tag that looks like a digest means that manifest


@dataclass(frozen=True)
class Profile:
    """One registry. `name` is the one that images begin with."""

    name: str
    login: Login | None
    challenge: Challenge
    realm: Realm | None = None
    path: str = ""  # what stands before /v2/
    project: str = ""  # the first parts of each repository's name
    is_open: bool = False  # what is public is given without a token
    has_public: bool = True  # it gives something to the anonymous
    stranger: int = 401  # the status that hides what is private from the anonymous
    refused: int = 401  # of a login that is not good, shown to the registry itself
    tags: Tags = Tags()
    storage: Storage = Storage()
    manifests: Manifests = Manifests()
    referrers: Referrers = Referrers.TAG
    headers: Mapping[str, str] = field(default_factory=dict)  # with each answer
    error_type: str = "application/json"
    front_of: Profile | None = None  # it redirects everything there
    keys: Mapping[str, Any] = field(default_factory=dict)  # more of mirror.yaml
