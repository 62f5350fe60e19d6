"""The whole matrix, by hand: a row for each thing that happens.

    python -m tests.faults.fleet [--size MIB] [--workers N] [--far no] [scene ...]

As root, it runs in a network of its own, where its rules of iptables touch nobody else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..bodies import MIB
from .nodes import Fleet
from .scenes import SCENES, WITH_DISKS, WITH_IPTABLES, WITH_SENTINELS, Scene, Seen, seen

_DISK = 600 * MIB
_ALONE = "FLEET_IS_IN_A_NETWORK_OF_ITS_OWN"  # in the environment


async def _run(folder: Path, asked: argparse.Namespace) -> bool:
    """Every fleet has those scenes that need it as it is."""
    good = True
    print(f"{'':32} {'requests':>8} {'sent':>6} {'whole':>8} {'gap':>6}  far", flush=True)
    fleets: list[tuple[dict[str, Scene], dict[str, Any]]] = [
        (SCENES | WITH_IPTABLES, {}),
        (WITH_DISKS, {"disk": _DISK}),
        (WITH_SENTINELS, {"sentinels": True}),
    ]
    for number, (scenes, keys) in enumerate(fleets):
        named = [name for name in scenes if not asked.scene or name in asked.scene]
        if named:
            fleet = Fleet(
                folder / f"{number}", far=asked.far == "yes", workers=asked.workers, **keys
            )
            good &= await _seen(fleet, {name: scenes[name] for name in named}, asked)
    return good


async def _seen(fleet: Fleet, scenes: dict[str, Scene], asked: argparse.Namespace) -> bool:
    good = True
    async with fleet:
        for name, scene in scenes.items():
            saw = await seen(fleet, scene, asked.size * MIB)
            far = await fleet.far_content() if fleet.far is not None else {}
            whole = f"{len(saw.others) - len(saw.failed)}/{len(saw.others)}"
            row = f"{name:32} {saw.requests:8} {saw.sent:5.2f}x {whole:>8} {saw.gap:5.2f}s"
            good &= _told(f"{row}  {sum(far.values())} of {len(far)}", saw, all(far.values()))
        good &= fleet.near_content_is_right()
        if asked.words:
            print(fleet.words())
    return good


def _told(row: str, saw: Seen, far: bool) -> bool:
    print(row, flush=True)
    for each in saw.failed:
        print("    failed:", each)
    for each in saw.wrong:
        print("    WRONG:", each)
    return far and not saw.failed and not saw.wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fleet")
    names = (*SCENES, *WITH_IPTABLES, *WITH_DISKS, *WITH_SENTINELS)
    parser.add_argument("scene", nargs="*", choices=[[], *names])
    parser.add_argument("--size", type=int, default=90, help="of the blob, in MiB")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--far", choices=["yes", "no"], default="yes")
    parser.add_argument("--words", action="store_true", help="what the nodes wrote")
    asked = parser.parse_args()
    if _ALONE not in os.environ:
        words = (sys.executable, "-m", "tests.faults.fleet", *sys.argv[1:])
        os.environ[_ALONE] = "yes"
        os.execvp(
            "unshare", ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "", *words)
        )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet")))
        sys.exit(0 if asyncio.run(_run(folder, asked)) else 1)


if __name__ == "__main__":
    main()
