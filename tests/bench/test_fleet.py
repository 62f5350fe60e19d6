"""Fleets on paper: what is made has the shape that is said of it, and counts add up."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from bench.fleet.__main__ import main, ways
from bench.fleet.answers import Answers, answers
from bench.fleet.events import Wave
from bench.fleet.images import Catalogue, Image
from bench.fleet.inputs import GB, PRESETS, Images, Load, Plan
from bench.fleet.real import PLAN, Beside, steps
from bench.fleet.region import FAR, NEAR, PEER, UPSTREAM, Region, simulated
from bench.fleet.trace import Pull, pulls, rate

MB = 1e6
SMALL = replace(
    PRESETS["cluster"],
    nodes=20,
    images=Images(count=100, bases=10),
    load=Load(pulls=30, waves=2, hours=12, warm=0),
)


def found(plan: Plan) -> Answers:
    return answers(plan, [simulated(plan, number) for number in range(plan.regions)])


def test_the_same_seed_gives_the_same_answers_and_another_one_others() -> None:
    assert found(SMALL) == found(SMALL)
    assert found(SMALL) != found(replace(SMALL, seed=2))


def test_images_have_the_sizes_and_layers_that_were_published() -> None:
    catalogue = Catalogue(Images(count=3000, shared=0.0), 1)
    images = [catalogue.image(number, 0) for number in range(3000)]
    sizes = sorted(sum(catalogue.sizes[each] for each in image.others) for image in images)
    layers = sorted(len(image.others) - 1 for image in images)
    each = [catalogue.sizes[number] for image in images for number in image.others[1:]]
    assert median(sizes) == pytest.approx(17 * MB, rel=0.25)
    assert 350 * MB < sizes[2700] < 550 * MB
    assert median(layers) == pytest.approx(8, abs=1)
    assert 16 <= layers[2700] <= 20
    assert 0.55 < sum(size < MB for size in each) / len(each) < 0.75
    assert 0.75 < sum(size < 10 * MB for size in each) / len(each) < 0.9


def test_images_share_their_base_s_layers_and_versions_all_but_the_last_ones() -> None:
    catalogue = Catalogue(Images(count=20, bases=1, shared=0.5), 1)
    images = [catalogue.image(number, 0) for number in range(20)]
    uses = Counter(number for image in images for number in image.others)
    assert uses.most_common(1)[0][1] > 10
    again = [catalogue.image(number, 1) for number in range(20)]
    for before, after in zip(images, again, strict=True):
        kept = set(before.others) & set(after.others)
        assert kept >= {number for number in before.others if uses[number] > 1}
        assert len(before.others) == len(after.others) > len(kept)
        assert not set(before.documents) & set(after.documents)


def test_popularity_falls_by_its_exponent() -> None:
    catalogue, chance = Catalogue(Images(count=1000, zipf=1.0), 1), random.Random(1)
    drawn = Counter(catalogue.drawn(chance) for _ in range(50_000))
    assert drawn[0] / drawn[9] == pytest.approx(10, rel=0.25)


def test_pulls_come_in_order_as_many_as_are_said_and_a_wave_has_each_node_once() -> None:
    catalogue = Catalogue(SMALL.images, 1)
    made = list(pulls(SMALL, 0, 20, catalogue))
    assert [pull.at for pull in made] == sorted(pull.at for pull in made)
    wave = [pull for pull in made if pull.image >= SMALL.images.count]
    assert sorted(pull.node for pull in wave) == list(range(20))
    assert wave[-1].at - wave[0].at < SMALL.load.spread
    assert len(made) - 20 == pytest.approx(20 * 30 / 2, rel=0.6)


def test_a_day_s_pulls_swing_about_their_mean() -> None:
    load = Load(pulls=24, swing=0.5)
    hours = [rate(load, hour * 3600, 0.0) * 3600 for hour in range(24)]
    assert sum(hours) == pytest.approx(24)
    assert max(hours) == pytest.approx(1.5, rel=0.02)
    assert min(hours) == pytest.approx(0.5, rel=0.02)


def test_a_fleet_fetches_each_content_once_and_nodes_alone_each_for_itself() -> None:
    tally, stored = simulated(SMALL, 0)
    assert tally.bytes[UPSTREAM] == pytest.approx(sum(tally.fetched.values()))
    assert stored == pytest.approx(tally.bytes[UPSTREAM])
    alone, _ = simulated(ways(SMALL)[0], 0)
    assert alone.requests[PEER] == alone.requests[FAR] == 0
    assert alone.bytes[UPSTREAM] > 4 * tally.bytes[UPSTREAM]
    assert sum(alone.bytes.values()) == pytest.approx(sum(tally.bytes.values()))


def test_a_larger_disk_answers_more() -> None:
    plans = [replace(SMALL, near=near * GB) for near in (1, 10, 1000)]
    hits = [found(plan).hits[NEAR] for plan in plans]
    assert hits == sorted(hits)
    assert hits[0] < hits[2]


def test_a_home_region_asks_upstream_for_all_and_the_others_ask_it() -> None:
    plan = replace(SMALL, nodes=40, regions=4)
    apart, home = found(plan), found(replace(plan, home=True))
    assert home.upstream_bytes < 0.7 * apart.upstream_bytes
    assert home.region_bytes > 0
    assert apart.region_bytes == 0


def one_image(plan: Plan, sizes: Sequence[float], starts: Sequence[float]) -> Region:
    """A region in which nothing is pulled but these contents, at these times."""
    catalogue = Catalogue(plan.images, 1)
    for number, size in enumerate(sizes):
        catalogue.sizes.append(size)
        catalogue.names.append((0, 0, number))
    catalogue._versions[0, 0] = Image((), tuple(range(len(sizes))))
    region = Region(plan, 0, len(starts), catalogue)
    for node, at in enumerate(starts):
        region.pull(Pull(at, node, 0, 0))
    return region


@pytest.mark.parametrize("far", [True, False])
@pytest.mark.parametrize("nodes", [3, 30])
def test_the_reckoning_is_near_to_what_events_give(nodes: int, far: bool) -> None:
    plan = replace(PRESETS["cluster"], nodes=nodes, far=far)
    plan = replace(plan, speeds=replace(plan.speeds, unpack=1e15, upstream_latency=0.1))
    # Events count what is said to Redis, and know nothing of tags.
    once = {"lease": 1.0, "come": 1.0, "renewal": 1.0}
    never = {"miss": 0.0, "tag_read": 0.0, "tag_write": 0.0}
    plan = replace(plan, protocol=replace(plan.protocol, **once, **never))
    sizes, starts = (200 * MB, 100 * MB, 50 * MB), [2 * node / nodes for node in range(nodes)]
    played = Wave(plan, sizes, starts).outcome
    reckoned = one_image(plan, sizes, starts).tally
    assert played.upstream_requests == reckoned.requests[UPSTREAM] == len(sizes)
    assert played.upstream_bytes == reckoned.bytes[UPSTREAM] == sum(sizes)
    assert played.far_bytes == pytest.approx(reckoned.bytes[FAR], rel=0.2, abs=50 * MB)
    took = sorted(end - at for end, at in zip(played.ends, starts, strict=True) if end)
    assert median(took) == pytest.approx(median(reckoned.seconds), rel=0.15)
    assert took[-1] == pytest.approx(max(reckoned.seconds), rel=0.15)
    assert played.redis == pytest.approx(reckoned.redis, rel=0.35)


def test_nodes_without_one_another_fetch_for_themselves_in_events_too() -> None:
    plan = replace(PRESETS["cluster"], nodes=5, far=False, peers=False)
    played = Wave(plan, [20 * MB], [0.0] * 5).outcome
    assert played.upstream_bytes == 5 * 20 * MB
    assert played.redis == 0


def test_a_follower_s_followers_wait_for_no_more_than_a_hop_each() -> None:
    plan = replace(PRESETS["cluster"], nodes=74, far=False)
    region = one_image(plan, [20 * MB], [0.001 * node for node in range(74)])
    seconds = region.tally.seconds
    assert region.tally.requests == {UPSTREAM: 1, PEER: 73, NEAR: 0, FAR: 0}
    # 8 read from the holder, 64 from these, one from the third row.
    hop = plan.speeds.peer_latency
    assert 0 < seconds[73] + 0.073 - seconds[0] < 5 * hop


def test_when_the_holder_is_killed_another_goes_on_within_three_seconds() -> None:
    plan = replace(PRESETS["cluster"], nodes=20, far=False)
    played = Wave(plan, [200 * MB], [0.0] * 20, kill=1.0).outcome
    assert played.ends.count(None) == 1
    assert 1.5 < played.pause < 3
    assert played.upstream_requests == 2
    assert played.upstream_bytes < 1.5 * 200 * MB


def test_what_is_replayed_by_real_mirrors_has_waves_of_all_nodes_at_once() -> None:
    trace = list(pulls(PLAN, 0, PLAN.nodes, Catalogue(PLAN.images, PLAN.seed, PLAN.load.wave)))
    found = steps(trace)
    assert [pull for step in found for pull in step] == trace
    waves = [step for step in found if len(step) > 1]
    assert len(waves) == PLAN.load.waves
    assert all({pull.node for pull in wave} == {0, 1, 2} for wave in waves)


def test_numbers_are_near_by_a_part_of_the_real_one() -> None:
    assert Beside(100, 109, 0.1).is_near
    assert not Beside(100, 111, 0.1).is_near
    assert Beside(0, 0, 0.0).is_near
    assert not Beside(0, 1, 0.5).is_near


def test_the_command_prints_a_table_or_all_it_supposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["team", "--pulls", "50", "--hours", "3", "--warm", "0", "--ways"]) == 0
    assert "| team, alone | team, peers | team, far | team, both |" in capsys.readouterr().out
    assert main(["team", "--pulls", "50", "--hours", "3", "--warm", "0", "--no-far", "--json"]) == 0
    documents: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert documents[0]["plan"]["load"]["pulls"] == 50
    assert documents[0]["answers"]["s3_get"] == 0


@pytest.mark.parametrize(
    "words", [["nowhere"], ["team", "--regions", "4"], ["team", "--near", "-1"], ["team", "--x"]]
)
def test_wrong_words_are_said_to_be_wrong(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
