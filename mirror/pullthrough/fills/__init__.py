"""Fills: one download a digest, however many ask."""
