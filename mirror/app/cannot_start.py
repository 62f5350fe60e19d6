"""Why nothing is served, or done."""

from __future__ import annotations


class CannotStart(Exception):
    """What the configuration names cannot be had here; the message says what to do."""
