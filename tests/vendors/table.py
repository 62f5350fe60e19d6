"""What docs/upstreams.md says was run: a row for each profile, in words."""

from __future__ import annotations

from . import short_name
from .profile import Profile, Referrers

_REFERRERS = {
    Referrers.API: "API",
    Referrers.TAG: "tag",
    Referrers.PAGE: "tag, the API is a page",
    Referrers.NOWHERE: "none",
}


def row_of(profile: Profile) -> str:
    """`registry | public | private | tags | blobs | referrers`"""
    last = profile.front_of or profile
    cells = (
        f"`{short_name(profile)}`",
        "yes" if profile.has_public else "no",
        _private(profile),
        _tags(last),
        _blobs(last),
        _REFERRERS[last.referrers],
    )
    return f"| {' | '.join(cells)} |"


def _private(profile: Profile) -> str:
    if profile.login is None:
        return "no"
    if profile.login.kind == "identity_token_file":
        return "identity token"
    if profile.realm is None:
        return "password itself"
    return "realm on another host" if profile.realm.elsewhere else "realm"


def _tags(profile: Profile) -> str:
    if not profile.tags.is_open:
        return "no list"
    return f"by {profile.tags.page}" if profile.tags.page else "all at once"


def _blobs(profile: Profile) -> str:
    how = profile.storage
    if not how.status:
        return "sent"
    return "redirected, same host" if how.path else "redirected"
