"""How much is measured, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Scale:
    """`seconds`: how long one sample of a steady state takes. Sizes in bytes. `long_rounds`: of
    what takes many seconds each time. `first_bytes`: how many misses one sample of them is.
    `images`: of a round of small ones. `layer`: of the image that real clients pull;
    `cold_layer`, `large_layer`: of those that nobody has asked for before. `tags`: as
    many are kept hot. `blobs`, `connections`: how many there are, for what may not depend on it;
    `hits`: how many of those blobs one sample asks for.
    """

    rounds: int
    long_rounds: int
    seconds: float
    blob: int
    herd_blob: int
    slow_seconds: float
    first_bytes: int
    images: int
    layer: int
    cold_layer: int
    large_layer: int
    tags: int
    blobs: tuple[int, ...]
    connections: tuple[int, ...]
    hits: int


FULL = Scale(
    rounds=5,
    long_rounds=3,
    seconds=3.0,
    blob=512 * MIB,
    herd_blob=256 * MIB,
    slow_seconds=15.0,
    first_bytes=20,
    images=1000,
    layer=8 * MIB,
    cold_layer=64_000_000,
    large_layer=5_000_000_000,
    tags=10_000,
    blobs=(1_000, 10_000, 100_000, 1_000_000),
    connections=(1, 10, 100, 1_000, 10_000),
    hits=1_000,
)
QUICK = Scale(
    rounds=1,
    long_rounds=1,
    seconds=0.2,
    blob=16 * MIB,
    herd_blob=8 * MIB,
    slow_seconds=6.0,
    first_bytes=3,
    images=100,
    layer=MIB // 8,
    cold_layer=MIB,
    large_layer=8 * MIB,
    tags=200,
    blobs=(100, 1_000),
    connections=(1, 100),
    hits=100,
)
