"""Builds a running mirror from a Config: the one place where the rooms meet."""

from .logins import refusals
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
from .stores import CannotStart, tag_memory

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
