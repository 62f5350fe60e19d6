"""Torture for some seconds: see torture.py, which runs for as long as one likes."""

from __future__ import annotations

import random
from pathlib import Path

from .torture import Plan, torture


async def test_no_pushed_image_is_lost_whatever_happens(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    plan = Plan(5.0, seed, workers=2, grace=2.0, kill_every=(2.0, 2.5))
    ended = await torture(tmp_path, plan)
    assert ended.done["pushes"] > 20
    assert ended.done["pulls"] > 5
    assert ended.done["kills"] + ended.done["workers killed"] >= 1
