"""What the nodes of a fleet know of one another, in Redis."""
