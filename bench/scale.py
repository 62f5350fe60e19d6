"""How much is measured, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Scale:
    """`seconds`: how long one sample of a steady state takes. Sizes in bytes. `long_rounds`: of
    what takes many seconds each time. `first_bytes`: how many misses one sample of them is."""

    rounds: int
    long_rounds: int
    seconds: float
    blob: int
    herd_blob: int
    slow_seconds: float
    first_bytes: int


FULL = Scale(
    rounds=5,
    long_rounds=3,
    seconds=3.0,
    blob=512 * MIB,
    herd_blob=256 * MIB,
    slow_seconds=15.0,
    first_bytes=20,
)
QUICK = Scale(
    rounds=1,
    long_rounds=1,
    seconds=0.5,
    blob=64 * MIB,
    herd_blob=32 * MIB,
    slow_seconds=6.0,
    first_bytes=3,
)
