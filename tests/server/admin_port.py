"""The admin port before stand-ins for what it shows, for tests of the page and the API."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from mirror.server.admin.application import admin_application
from mirror.server.admin.console import Admission, Console
from mirror.server.control import Command, CommandFailed, Tells

from ..fakes.activity import FakeActivity
from ..fakes.images import FakeImages

TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Port:
    """`admission` may be changed while it runs, as by a reload."""

    activity: FakeActivity = field(default_factory=FakeActivity)
    images: FakeImages = field(default_factory=FakeImages)
    admission: Admission = field(default_factory=Admission)
    url: str = ""
    ran: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def application(self, bound_to: str = "127.0.0.1") -> web.Application:
        async def metrics() -> bytes:
            return b"up 1\n"

        async def missing(image: str, platform: str | None) -> list[str]:
            return []

        return admin_application(
            bound_to,
            metrics,
            lambda: (True, {}),
            missing,
            Console(self.activity, self.images, self._commands().get),
            lambda: self.admission,
        )

    def _commands(self) -> Mapping[str, Command]:
        async def warm(parameters: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
            self.ran.append(("warm", parameters))
            [(name, _)] = parameters["images"]
            if name == "no/such":
                raise CommandFailed("no/such: the registry has no such image")
            yield {"told": "image_ended", "image": name, "result": "whole"}
            yield {"told": "work_ended", "result": "good"}

        async def reload(parameters: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
            self.ran.append(("reload", parameters))
            yield {"result": "applied", "words": []}

        return {"warm": Tells(warm), "reload": Tells(reload)}


def proof_of(page: str) -> str:
    """The token by which the page shows that it is the mirror's own."""
    found = re.search(r"X-CSRF-Token(?:&#34;|\"|\\u0022): (?:&#34;|\"|\\u0022)([\w-]+)", page)
    assert found is not None
    return found[1]
