"""Builds a running mirror from a Config: the one place where the rooms meet."""

from ..server.control import (
    CommandFailed,
    GivesBytes,
    NotAnswered,
    TakesBytes,
    Tells,
    ask,
    ask_bytes,
    ask_lines,
)
from .activity import ConfigWatch, Surroundings, seeing, watching
from .ahead import Ahead, ahead, ahead_beside
from .checking import checked_endpoints
from .forewarned import forewarned
from .images import images_alone
from .log_control import LogSwitch, settings_of, tell_pull
from .logins import refusals
from .operations import Operations, operating
from .reloading import Reloader
from .resources import CannotStart, Process, holding_store, resources, sharing_store, tag_memory
from .service_manager import Notifier, ServiceManager, service_manager
from .serving import (
    GRACE,
    keeping_house,
    running,
    serving_admin,
    serving_pulls,
    settle,
    verify,
)
from .sockets import facts, own_reach, pull_ports

__all__ = [
    "GRACE",
    "Ahead",
    "CannotStart",
    "CommandFailed",
    "ConfigWatch",
    "GivesBytes",
    "LogSwitch",
    "NotAnswered",
    "Notifier",
    "Operations",
    "Process",
    "Reloader",
    "ServiceManager",
    "Surroundings",
    "TakesBytes",
    "Tells",
    "ahead",
    "ahead_beside",
    "ask",
    "ask_bytes",
    "ask_lines",
    "checked_endpoints",
    "facts",
    "forewarned",
    "holding_store",
    "images_alone",
    "keeping_house",
    "operating",
    "own_reach",
    "pull_ports",
    "refusals",
    "resources",
    "running",
    "seeing",
    "service_manager",
    "serving_admin",
    "serving_pulls",
    "settings_of",
    "settle",
    "sharing_store",
    "tag_memory",
    "tell_pull",
    "verify",
    "watching",
]
