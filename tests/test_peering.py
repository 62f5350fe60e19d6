"""How nodes prove to be of one fleet: what is signed, for how long, and for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirror.peering import SKEW, Ask, Proof, Refused, is_mac_of, mac_of

from .fakes import HandClock

SECRET = b"0123456789abcdef0123456789abcdef"
A, B, C = "http://10.0.0.1:5003", "http://10.0.0.2:5003", "https://[2001:db8::3]:5003"
ASK = Ask("GET", "/fleet/1/content/docker.io/sha256:00", "bytes=5-")


def refusal(proof: Proof, ask: Ask, given: str) -> tuple[str, str]:
    with pytest.raises(Refused) as raised:
        proof.asker(ask, given)
    return raised.value.reason, str(raised.value)


def test_a_node_is_known_by_what_it_signs() -> None:
    wall = HandClock()
    for asker, asked in ((A, B), (C, A)):
        given = Proof(SECRET, asker, wall).of(ASK, asked)
        assert Proof(SECRET, asked, wall).asker(ASK, given) == asker
        assert SECRET.decode() not in given


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, method="HEAD"),
        replace(ASK, path=ASK.path + "0"),
        replace(ASK, range="bytes=6-"),
        replace(ASK, range=""),
    ],
    ids=["method", "path", "range", "no range"],
)
def test_what_is_signed_is_good_for_nothing_else(other: Ask) -> None:
    wall = HandClock()
    given = Proof(SECRET, A, wall).of(ASK, B)
    assert refusal(Proof(SECRET, B, wall), other, given)[0] == "signature"


def test_nor_is_it_at_another_node_or_with_another_secret() -> None:
    wall = HandClock()
    given = Proof(SECRET, A, wall).of(ASK, B)
    assert refusal(Proof(SECRET, C, wall), ASK, given)[0] == "signature"
    assert refusal(Proof(SECRET[::-1], B, wall), ASK, given)[0] == "signature"
    assert refusal(Proof(SECRET, B, wall), ASK, given.replace(A, C))[0] == "signature"


@pytest.mark.parametrize(
    "given", ["", "Basic bWU6aHVudGVyMg==", f"Fleet {A} 17 {'0' * 63}", f"Fleet {A} ² {'0' * 64}"]
)
def test_a_stranger_is_told_nothing_of_the_fleet(given: str) -> None:
    reason, words = refusal(Proof(SECRET, B, HandClock()), ASK, given)
    assert reason == "unsigned"
    assert B not in words


@pytest.mark.parametrize(("late", "word"), [(SKEW + 2, "ahead of"), (-SKEW - 2, "behind")])
def test_what_was_overheard_is_good_for_a_minute_and_clocks_are_told_of(
    late: float, word: str
) -> None:
    wall = HandClock()
    given = Proof(SECRET, A, wall).of(ASK, B)
    wall.now += late - (2 if late > 0 else -2)
    assert Proof(SECRET, B, wall).asker(ASK, given) == A
    wall.now += 2 if late > 0 else -2
    reason, words = refusal(Proof(SECRET, B, wall), ASK, given)
    assert reason == "clock"
    assert f"62 s {word}" in words
    assert A in words
    assert B in words


def test_no_two_lists_of_words_are_signed_alike() -> None:
    mac = mac_of(SECRET, "ask", "ab", "c")
    assert is_mac_of(mac, SECRET, "ask", "ab", "c")
    for other in (("a", "bc"), ("ab", "c", ""), ("ab2:c,",)):
        assert not is_mac_of(mac, SECRET, "ask", *other)
    assert not is_mac_of(mac, SECRET, "node", "ab", "c")
