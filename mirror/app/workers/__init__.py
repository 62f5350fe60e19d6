"""Several processes on one port: started, watched, replaced, and stopped together.

The parent serves no pull: it has the admin port, adds up what the workers count, and keeps the
store's house. The workers share the store, the tag memory and the port (SO_REUSEPORT), and nothing
else; one that dies or hangs takes only its own connections with it.
"""

from .parent import serve_with_workers

__all__ = ["serve_with_workers"]
