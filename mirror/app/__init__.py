"""Builds a running mirror from a Config: the one place where the rooms meet."""

from .logins import refusals
from .resources import CannotStart, tag_memory
from .serving import (
    GRACE,
    having_images,
    ignore_hangups,
    keeping_house,
    probe_port,
    running,
    serving_admin,
    serving_pulls,
    settle,
    verify,
)

__all__ = [
    "GRACE",
    "CannotStart",
    "having_images",
    "ignore_hangups",
    "keeping_house",
    "probe_port",
    "refusals",
    "running",
    "serving_admin",
    "serving_pulls",
    "settle",
    "tag_memory",
    "verify",
]
