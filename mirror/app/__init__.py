"""Builds a running mirror from a Config: the one place where the rooms meet."""

from .logins import refusals
from .resources import CannotStart, Process, holding_store, resources, sharing_store, tag_memory
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
    "Process",
    "having_images",
    "holding_store",
    "ignore_hangups",
    "keeping_house",
    "probe_port",
    "refusals",
    "resources",
    "running",
    "serving_admin",
    "serving_pulls",
    "settle",
    "sharing_store",
    "tag_memory",
    "verify",
]
