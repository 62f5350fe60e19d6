"""Hosted names: repositories of one's own, and the page for people."""
