"""Requests made into pulls."""

from __future__ import annotations

from dataclasses import replace

from mirror.activity.news import Asked
from mirror.activity.pulls import QUIET, Pulls, has_missed, is_without_upstream
from mirror.contracts.activity import Pull, PullRequest

from ..fakes import HandClock

INDEX, MANIFEST = "sha256:" + "1" * 64, "sha256:" + "2" * 64
LAYER, OTHER = "sha256:" + "3" * 64, "sha256:" + "4" * 64


class Desk:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.ended: list[Pull] = []
        self.pulls = Pulls(self.clock.clock(), ended=self.ended.append)
        self.pulls.default_registry = "docker.io"

    def asked(
        self,
        kind: str,
        reference: str,
        outcome: str = "hit",
        client: str = "10.1.2.7",
        digest: str = "",
        repository: str = "library/redis",
        **words: object,
    ) -> Asked:
        request = PullRequest(
            at=self.clock.wall,
            request_id="",
            client=client,
            agent="docker/28.5.0",
            method="GET",
            kind=kind,
            reference=reference,
            outcome=outcome,
            status=200,
            first_byte=0.01,
            last_byte=0.02,
            sent=100,
        )
        return Asked("docker.io", repository, replace(request, **words), digest)

    def hear(self, *arguments: object, **words: object) -> None:
        self.pulls.hear(self.asked(*arguments, **words))  # type: ignore[arg-type]

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.pulls.end_quiet()


def test_all_that_dockerd_asks_for_an_image_is_one_pull():
    desk = Desk()
    desk.hear("tag", "7", method="HEAD", sent=0, digest=INDEX)
    desk.hear("manifest", INDEX)
    desk.hear("manifest", MANIFEST)
    desk.hear("blob", LAYER, "filled")
    desk.hear("blob", OTHER)
    assert not desk.ended
    desk.passes(QUIET)
    [pull] = desk.ended
    assert (pull.image, pull.client, pull.agent) == ("redis:7", "10.1.2.7", "docker/28.5.0")
    assert (pull.summary, pull.bytes, pull.pulls) == ("MISS 1/5", 400, 1)
    assert [one.kind for one in pull.requests] == ["tag", "manifest", "manifest", "blob", "blob"]
    assert has_missed(pull)
    assert not is_without_upstream(pull)


def test_a_pull_goes_on_as_long_as_a_request_of_it_does():
    desk = Desk()
    desk.hear("tag", "7", digest=MANIFEST)
    running = desk.asked("blob", LAYER, "", is_running=True)
    for _ in range(5):
        desk.pulls.running([running])
        desk.passes(QUIET)
    [pull] = desk.pulls.newest(10)
    assert pull.ended_at is None
    assert pull.requests[-1].is_running
    desk.pulls.running([])
    desk.hear("blob", LAYER, "filled")
    desk.passes(QUIET)
    [pull] = desk.ended
    assert pull.summary == "MISS 1/2"
    assert not any(one.is_running for one in pull.requests)


def test_several_behind_one_address_that_pull_at_once_are_told_as_so_many():
    desk = Desk()
    for _ in range(3):
        desk.hear("tag", "7", digest=MANIFEST)
        desk.hear("blob", LAYER)
    desk.passes(QUIET)
    assert [pull.pulls for pull in desk.ended] == [3]


def test_the_same_pulled_again_later_is_another_pull():
    desk = Desk()
    for _ in range(2):
        desk.hear("tag", "7")
        desk.passes(QUIET)
    assert [pull.pulls for pull in desk.ended] == [1, 1]


def test_clients_and_repositories_are_kept_apart():
    desk = Desk()
    desk.hear("tag", "7", client="10.1.2.7")
    desk.hear("tag", "7", client="10.1.2.8")
    desk.hear("tag", "7", repository="acme/app")
    desk.passes(QUIET)
    assert {(pull.client, pull.image) for pull in desk.ended} == {
        ("10.1.2.7", "redis:7"),
        ("10.1.2.8", "redis:7"),
        ("10.1.2.7", "acme/app:7"),
    }


def test_a_manifest_is_of_the_tag_that_pointed_to_it():
    desk = Desk()
    desk.hear("tag", "6", digest=INDEX)
    desk.hear("tag", "7", digest=MANIFEST)
    desk.hear("manifest", INDEX)
    desk.passes(QUIET)
    assert {pull.image: len(pull.requests) for pull in desk.ended} == {"redis:6": 2, "redis:7": 1}


def test_a_tag_that_another_process_tells_of_later_names_the_pull():
    desk = Desk()
    began = desk.asked("tag", "7", digest=MANIFEST)
    desk.clock.now += 0.2
    desk.hear("manifest", MANIFEST)
    desk.hear("blob", LAYER)
    desk.pulls.hear(began)
    desk.passes(QUIET)
    assert [(pull.image, len(pull.requests)) for pull in desk.ended] == [("redis:7", 3)]


def test_a_tag_of_an_index_that_another_process_tells_of_later_names_the_pull():
    """With workers it is as likely as not that the one that gave the tag tells of it second."""
    desk = Desk()
    began = desk.asked("tag", "7", digest=INDEX)
    desk.clock.now += 0.2
    desk.hear("manifest", MANIFEST)
    desk.hear("blob", LAYER)
    desk.pulls.hear(began)
    desk.passes(QUIET)
    assert [(pull.image, len(pull.requests)) for pull in desk.ended] == [("redis:7", 3)]


def test_layers_without_a_manifest_are_of_the_image_that_was_pulled_last():
    desk = Desk()
    desk.hear("tag", "7")
    desk.passes(QUIET)
    desk.hear("blob", LAYER)
    desk.passes(QUIET)
    assert [pull.image for pull in desk.ended] == ["redis:7", "redis:7"]


def test_one_client_pushes_out_nobody_elses_pulls():
    desk = Desk()
    desk.hear("tag", "7", client="10.1.2.8")
    desk.passes(QUIET)
    for number in range(3000):
        desk.hear("tag", f"v{number}", repository=f"acme/app{number}")
    assert [pull.client for pull in desk.pulls.newest(9999, "10.1.2.8")] == ["10.1.2.8"]
    assert len(desk.pulls.newest(9999)) <= 1000


def test_a_pull_keeps_so_many_requests_and_counts_the_rest():
    desk = Desk()
    desk.hear("tag", "7")
    for number in range(200):
        desk.hear("blob", f"sha256:{number:064x}")
    desk.passes(QUIET)
    [pull] = desk.ended
    assert len(pull.requests) + pull.more == 201
    assert len(pull.requests) <= 40
    assert pull.summary == "HIT 201/201"


def test_a_request_is_found_by_its_id_and_an_image_by_its_digest():
    desk = Desk()
    desk.hear("tag", "7", digest=MANIFEST, request_id="abc")
    assert [pull.image for pull in desk.pulls.with_request("abc")] == ["redis:7"]
    assert not desk.pulls.with_request("abd")
    [found] = desk.pulls.of_image("docker.io", "library/redis", MANIFEST)
    assert found.reference == "7"
