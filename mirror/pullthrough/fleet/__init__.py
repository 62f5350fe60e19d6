"""Nodes that fetch together: one of them asks the registry, the others read from that one."""
