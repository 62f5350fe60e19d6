"""Several processes on one port: started, watched, replaced, and stopped together.

The parent serves no pull: it has the admin port, adds up what the workers count, and keeps the
store's house. The workers share the store, the tag memory and the sockets that listen, and nothing
else; one that dies or hangs takes only its own connections with it. Those that wait to be accepted
wait for whichever comes first: with a socket for each worker (SO_REUSEPORT) the kernel would reset
those of one that ends, and hand them to one that hangs.
"""

from .cradle import Cradle, forked
from .running import serve_with_workers

__all__ = ["Cradle", "forked", "serve_with_workers"]
