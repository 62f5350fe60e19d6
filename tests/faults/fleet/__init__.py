"""Mirrors that share one cache, as real processes over real engines: what they lose when any of
these dies. `python -m tests.faults.fleet` runs all that CI has no time for."""
