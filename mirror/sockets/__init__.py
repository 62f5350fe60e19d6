"""Sockets that threads and the event loop use by turns, with TLS or without."""
