"""How the templates of both pages are read."""

from __future__ import annotations

from pathlib import Path

import jinja2

from . import TEMPLATES


def environment(own: Path) -> jinja2.Environment:
    """Of the templates in the folder `own`, and of the frame."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([own, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
