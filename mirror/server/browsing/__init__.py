"""What the pages for people have in common, that of the admin port and that of hosted names: files,
refusals, bodies, and what browsers are told."""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""The frame of every page: base.html."""
