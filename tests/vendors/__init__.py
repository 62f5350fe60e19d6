"""Registries of vendors, emulated from their documentation and from reports of their users.

profile.py      what tells one registry from another, as a value
emulated.py     the one server that behaves as a profile says
cloud.py        profiles: what cloud providers and public registries run
own.py          profiles: what people run themselves
"""

from __future__ import annotations

from . import cloud, own
from .profile import Profile


def short_name(profile: Profile) -> str:
    """As pytest shows it."""
    return profile.name.partition(".")[0]


PROFILES = (*cloud.PROFILES, *own.PROFILES)
