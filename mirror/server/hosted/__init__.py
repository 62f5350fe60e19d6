"""Hosted names: repositories of one's own, by the whole OCI distribution-spec 1.1, and the page for
people."""
