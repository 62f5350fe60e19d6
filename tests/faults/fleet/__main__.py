"""The whole matrix, by hand: a row for each thing that happens.

python -m tests.faults.fleet [--size MIB] [--workers N] [--far no] [--sentinels] [scene ...]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from ..bodies import MIB
from .nodes import Fleet
from .scenes import SCENES, WITH_SENTINELS, Seen, seen


async def _run(folder: Path, asked: argparse.Namespace) -> bool:
    good = True
    async with Fleet(
        folder, far=asked.far == "yes", sentinels=asked.sentinels, workers=asked.workers
    ) as fleet:
        print(f"{'':32} {'requests':>8} {'sent':>6} {'whole':>8} {'gap':>6}  far", flush=True)
        scenes = WITH_SENTINELS if asked.sentinels else SCENES
        for name in asked.scene or scenes:
            saw = await seen(fleet, scenes[name], asked.size * MIB)
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
    parser.add_argument("scene", nargs="*", choices=[[], *SCENES, *WITH_SENTINELS])
    parser.add_argument("--size", type=int, default=90, help="of the blob, in MiB")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--far", choices=["yes", "no"], default="yes")
    parser.add_argument("--sentinels", action="store_true", help="Redis is three that fail over")
    parser.add_argument("--words", action="store_true", help="what the nodes wrote")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet")))
        sys.exit(0 if asyncio.run(_run(folder, asked)) else 1)


if __name__ == "__main__":
    main()
