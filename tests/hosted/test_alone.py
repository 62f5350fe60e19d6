"""Administration where no mirror runs, and before the first start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.app import CannotStart
from mirror.app.hosting_alone import hosted_alone, hosting_alone
from mirror.config import parse
from mirror.contracts.context import OPERATOR, RequestContext

BY = RequestContext("1", "a test", OPERATOR)
HOSTED = 'storage: {{path: {0}, max_size: 1GiB, min_free: 0}}\nhosted: {{listen: "127.0.0.1:5002"}}'


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root leaves files of its own")
async def test_what_root_leaves_belongs_to_the_user_who_runs_the_mirror(tmp_path: Path) -> None:
    """Else the mirror could not open it when it starts."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    async with hosted_alone(parse(HOSTED.format(home / "store"), "mirror.yaml")) as hosted:
        await hosted.administration.users.add(BY, "ada", "a long password", administrator=True)
    left = {path.name: path.stat().st_uid for path in home.rglob("*")}
    assert "hosted.db" in left
    assert {name for name, owner in left.items() if owner != 65534} == set()


async def test_where_nothing_is_hosted_it_is_said_what_to_write(tmp_path: Path) -> None:
    config = parse(f"storage: {{path: {tmp_path / 'store'}}}", "mirror.yaml")
    with pytest.raises(CannotStart, match="hosted:"):
        async with hosting_alone(config):
            pass
    assert not (tmp_path / "store").exists()
