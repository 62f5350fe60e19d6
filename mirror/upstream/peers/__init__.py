"""The other nodes of a fleet: which there are, and what they give."""
