"""Repositories of one's own: pushed here, kept here, answered from here."""
