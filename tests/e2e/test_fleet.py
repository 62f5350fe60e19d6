"""Three nodes of one fleet behind one address, and real clients that pull one image at once."""

from __future__ import annotations

from pathlib import Path

from ..faults.fleet.nodes import Fleet
from ..faults.fleet.scenes import SCENES
from .clients import Containerd, Dockerd
from .fleet import machines, pulled
from .programs import needs

LAYERS = [100_000, 3_000_000, 8_000_000]
BUFFERS = 0.2  # of a blob: what was under way when the holder died


async def test_f80_a_cold_image_on_all_machines_is_fetched_once_though_its_holder_is_killed(
    tmp_path: Path,
) -> None:
    needs("busybox", *Dockerd.programs, *Containerd.programs)
    async with (
        Fleet(tmp_path, speed=8e6) as fleet,
        machines(fleet, at_front=1, at_nodes=1) as at,
    ):
        quiet = await pulled(fleet, at, SCENES["nothing"], LAYERS)
        killed = await pulled(fleet, at, SCENES["holder: kill -9"], LAYERS)
        words = fleet.words()
        assert await fleet.far_content()
        assert all((await fleet.far_content()).values())
    assert quiet.failed == [], words
    assert killed.failed == [], words
    assert max(quiet.sent.values()) <= 1.0 + BUFFERS / 10, (quiet.sent, words)
    assert max(killed.sent.values()) <= 1.0 + BUFFERS, (killed.sent, words)
