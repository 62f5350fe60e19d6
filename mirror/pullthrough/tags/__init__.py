"""Tags: what they point to, how long that is good, and pins."""
