"""Builds a running mirror from a Config: the one place where the rooms meet."""

from ..server.control import CommandFailed, NotAnswered, ask, ask_bytes, ask_lines
from .checking import checked_endpoints
from .logins import refusals
from .operations import Operations, operating
from .reloading import Reloader
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
    "CommandFailed",
    "NotAnswered",
    "Operations",
    "Process",
    "Reloader",
    "ask",
    "ask_bytes",
    "ask_lines",
    "checked_endpoints",
    "having_images",
    "holding_store",
    "keeping_house",
    "operating",
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
