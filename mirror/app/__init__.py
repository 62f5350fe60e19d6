"""Builds a running mirror from a Config: the one place where the rooms meet."""

from ..server.control import NotAnswered, ask
from .checking import checked_endpoints
from .logins import refusals
from .reloading import reloading
from .resources import CannotStart, Process, holding_store, resources, sharing_store, tag_memory
from .serving import (
    GRACE,
    having_images,
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
    "NotAnswered",
    "Process",
    "ask",
    "checked_endpoints",
    "having_images",
    "holding_store",
    "keeping_house",
    "probe_port",
    "refusals",
    "reloading",
    "resources",
    "running",
    "serving_admin",
    "serving_pulls",
    "settle",
    "sharing_store",
    "tag_memory",
    "verify",
]
