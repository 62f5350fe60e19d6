"""A mirror on an ordinary day, as the pictures in docs/ show it: with a login that is refused."""

from __future__ import annotations

from dataclasses import replace

from mirror.contracts.activity import (
    Day,
    Download,
    EndpointState,
    Happening,
    Limit,
    Minute,
    Pull,
    Rates,
    Status,
)
from mirror.contracts.images import CachedImage

from ..fakes.activity import NOW, pull_told, request_told, status_told
from ..fakes.images import image_told

SUM = "sha256:{:064x}".format


def status() -> Status:
    return status_told(
        started_at=NOW - 3 * 86400 - 4 * 3600,
        listen=("mirror.lan:5000",),
        day=Day(
            NOW - 86400, 9214, 8937, 60_000, 58_000, 412 * 10**9, 11 * 10**9, 0.0003, 14, 2**30
        ),
        rates=Rates(312e6, 4e6, 21.4, 7, 2, 1),
        endpoints=(
            EndpointState(
                "docker.io",
                "registry-1.docker.io",
                "https://registry-1.docker.io",
                "ok",
                latency=0.041,
                limits=(Limit("me", 200, 78, NOW + 3600 * 5),),
            ),
            EndpointState(
                "docker.io", "accelerator.lan", "https://accelerator.lan", "ok", latency=0.0042
            ),
            EndpointState(
                "ghcr.io",
                "ghcr.io",
                "https://ghcr.io",
                "login_refused",
                since=NOW - 3480,
                reason="401",
                logins_refused=("ci",),
            ),
            EndpointState(
                "quay.io", "quay.io", "https://quay.io", "stepped_back", NOW - 95, "timed out", 1.9
            ),
        ),
    )


def minutes() -> list[Minute]:
    """Two waves, and a burst of misses."""
    found = []
    for each in range(60):
        requests = 30 + (each * 7) % 23 + (34 if 18 < each < 29 else 0) + each // 3
        missed = 2 + each % 3 + (21 if 24 < each < 29 else 0)
        found.append(Minute(NOW - 3600 + 60 * each, requests, requests - missed, 10**9, 10**7))
    return found


def downloads() -> list[Download]:
    torch = Download(
        "1", "pytorch/pytorch:2.9", "docker.io", "pytorch/pytorch", SUM(0x3AF1 << 240),
        "running", 61_000_000, 100_000_000, 84e6, 3, NOW - 9,
    )  # fmt: skip
    return [
        torch,
        replace(torch, id="2", digest=SUM(0x81C0 << 240), here=920, size=1000, speed=31e6),
        replace(
            torch, id="3", image="node:24", digest=SUM(0x5B27 << 240), here=40, size=300,
            speed=12e6, readers=0,
        ),
        replace(
            torch, id="4", image="ghcr.io/acme/app:v1", digest=SUM(0x9B0D << 240),
            state="queued", queued=2.0, readers=1,
        ),
    ]  # fmt: skip


def pulls() -> list[Pull]:
    found = []
    images = ("redis:7", "postgres:17", "node:24", "python:3.13-slim", "nginx:1.29", "alpine:3.22")
    for each in range(24):
        image = images[(each * 5) % 6]
        missed = each in (2, 9, 15)
        found.append(
            pull_told(
                id=str(each),
                client=f"10.1.{2 + each % 3}.{7 + each * 3 % 40}",
                image=image,
                repository=f"library/{image.partition(':')[0]}",
                reference=image.partition(":")[2],
                pulls=12 if each == 4 else 1,
                began_at=NOW - 3 - each * 13,
                seconds=6.4 if missed else 0.1 + each * 5 % 7 / 20,
                bytes=(each * 37 % 90 + 4) * 10**6,
                summary="MISS 2/6" if missed else f"HIT {4 + each % 4}/{4 + each % 4}",
                requests=requests(),
            )
        )
    found[1] = replace(
        found[1],
        image="ghcr.io/acme/app:v1",
        summary="STALE 1, MISS 2/6",
        failure="ghcr.io: login refused (401)",
        seconds=8.1,
        bytes=90 * 10**6,
    )
    found[0] = replace(
        found[0], image="pytorch/pytorch:2.9", summary="MISS 3/9", ended_at=None, bytes=61 * 10**6
    )
    return found


def requests() -> tuple[object, ...]:
    tag = request_told(
        at=NOW - 60,
        kind="tag",
        method="HEAD",
        reference="7",
        outcome="revalidated",
        first_byte=0.041,
        last_byte=0.041,
        sent=0,
        queued=None,
        speed=None,
        why="ttl 5 m over by 12 s: unchanged",
    )
    layer = request_told(why="evicted 2 d ago for pytorch/pytorch (room)")
    hit = request_told(
        outcome="hit", first_byte=0.0003, last_byte=0.02, endpoint="", queued=None, upstream=None,
        why="", speed=None, sent=9_000_000, reference=SUM(0x70C2 << 240),
    )  # fmt: skip
    return tag, hit, layer


def happenings() -> list[Happening]:
    told = (
        ("login_refused", "error", "ghcr.io refuses the login ci (401)", 1, 3480),
        ("endpoint_stepped_back", "warning", "quay.io has timed out: others go first", 1, 95),
        ("evicted", "info", "1 GiB made room: pytorch/pytorch, last used 19 d ago", 14, 4000),
        ("tag_moved", "info", "node:24 points to 5b27c2a1 now, was 88f0e1d3", 1, 5100),
        ("config_applied", "info", "the configuration was read again", 1, 11520),
        ("quota_paused", "warning", "docker.io: fewer than 20 % of the pulls left", 1, 15000),
    )
    found = [
        Happening(100 - each, NOW - age, kind, level, "", words, count)
        for each, (kind, level, words, count, age) in enumerate(told)
    ]
    return sorted(found, key=lambda happening: -happening.at)


def images() -> list[CachedImage]:
    told = (
        ("redis:7", 41, 12, 1, 318, "whole, pinned", {"pinned": "command"}),
        ("pytorch/pytorch:2.9", 4100, 3900, 3, 12, "2 pieces missing", {"missing": 2}),
        ("postgres:17", 152, 80, 60, 290, "whole", {}),
        ("node:24", 391, 200, 95, 133, "whole", {}),
        ("python:3.13-slim", 52, 30, 140, 210, "whole", {}),
        ("nginx:1.29", 72, 40, 300, 77, "whole", {}),
        ("alpine:3.22", 3.8, 3.8, 340, 1204, "whole", {}),
        ("ghcr.io/acme/app:v1", 1100, 90, 420, 4, "stale", {"is_stale": True}),
        ("golang:1.25", 310, 280, 5400, 41, "whole", {}),
        ("grafana/grafana:12.2", 190, 190, 9000, 9, "whole", {}),
        ("prom/prometheus:v3.6.0", 118, 110, 9100, 9, "whole", {}),
        ("quay.io/minio/minio:latest", 64, 64, 2 * 86400, 2, "whole", {}),
    )
    return [
        image_told(
            name,
            size=size * 10**6,
            own=own * 10**6,
            used_at=NOW - age,
            pulls=count,
            state=state,
            **more,
        )
        for name, size, own, age, count, state, more in told
    ]
