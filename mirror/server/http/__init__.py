"""Connections: accepted, bounded, answered from the response cache, and sent to."""
