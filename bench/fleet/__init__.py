"""Fleets of mirrors on paper: what so many nodes ask of an upstream, of S3 and of Redis.

    python -m bench.fleet cluster                one of the presets
    python -m bench.fleet cluster --nodes 3000   and something else about it
    python -m bench.fleet team cluster           two of them, side by side
    python -m bench.fleet cluster --ways         without peers, without the far tier, without both

`inputs` says what is assumed, `images` makes what is pulled and `trace` who pulls it when; `region`
is the protocol of the mirrors that share an object store; `answers` adds up.
docs/scale.md says where the distributions come from, and how near it comes to real mirrors.
"""
