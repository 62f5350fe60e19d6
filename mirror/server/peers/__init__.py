"""The peer port, where the other nodes of a fleet ask this one."""
