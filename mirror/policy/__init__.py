"""Readers around other Readers, which decide: who answers, and what may be read."""
