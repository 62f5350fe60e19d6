"""What the page's handlers work with: the administration, templates, sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web

from .... import quantities
from ....clock import Clock
from ....contracts.administration import Administration
from ....contracts.identity import Action
from ...browsing.assets import Assets
from ...browsing.environment import environment
from . import forms
from .doorman import Doorman
from .kinds import kind
from .visits import Site, Visit

HERE = Path(__file__).parent

DONE = {
    "added": "Added.",
    "deleted": "Deleted.",
    "removed": "Removed.",
    "saved": "Saved.",
    "password": "The password is changed. You are signed in anew; all other browsers are not.",
    "sent": "It is on its way: its delivery is in the log below.",
    "made": "Made.",
}
"""What was done, by the word that the address has after it."""


class Desk:
    def __init__(
        self,
        administration: Administration,
        doorman: Doorman,
        clock: Clock,
        site: Site,
        assets: Assets,
    ) -> None:
        self.administration = administration
        self.doorman = doorman
        self.clock = clock
        self.site = site
        self._env = environment(HERE / "templates")
        self._env.filters.update(
            size=quantities.binary_size,
            ago=quantities.ago,
            moment=quantities.moment,
            in_days=forms.in_days,
            in_gib=forms.in_gib,
            lasted=quantities.lasted,
            kind=kind,
        )
        self._env.globals.update(asset=assets.url, Action=Action)

    async def rendered(
        self, visit: Visit, name: str, shown: Mapping[str, Any], status: int = 200
    ) -> web.Response:
        myself = await self.administration.users.myself(visit.context)
        text = self._env.get_template(name).render(
            {
                "me": myself,
                "is_known": visit.signed_in is not None,
                "proof": visit.signed_in.proof if visit.signed_in else "",
                "host": self.site.host(visit.request),
                "now": self.clock.wall(),
                "path": visit.path,
                "form": visit.form,
                "wrong": visit.wrong,
                "done": DONE.get(visit.asked("done"), ""),
                **shown,
            }
        )
        return web.Response(text=text, content_type="text/html", status=status)


def redirect(path: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: path})
