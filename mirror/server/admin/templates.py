"""The templates of the page. They are opened when somebody first looks at it: jinja takes a tenth
of the time in which a mirror starts, and some megabytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ... import quantities
from . import view

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent


class Templates:
    def __init__(self, asset: Callable[[str], str]) -> None:
        """`asset` tells the URL of a script or a style."""
        self._asset = asset

    def text(self, name: str, shown: Mapping[str, Any]) -> str:
        return self._opened.get_template(name).render(shown)

    def answer(self, name: str, shown: Mapping[str, Any], status: int = 200) -> web.Response:
        text = self.text(name, shown)
        return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")

    @cached_property
    def _opened(self) -> jinja2.Environment:
        from ..browsing.environment import environment

        opened = environment(_HERE / "templates")
        opened.filters.update(
            {
                name: getattr(quantities, name)
                for name in ("size", "binary_size", "lasted", "ago", "share", "moment", "clock")
            }
        )
        opened.globals.update(asset=self._asset, bar_height=view.HEIGHT)
        return opened
