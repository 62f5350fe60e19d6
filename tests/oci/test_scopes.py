"""Which of the scopes that a challenge names may be asked for."""

from __future__ import annotations

from string import ascii_lowercase

import pytest

from mirror.oci.scopes import MOST_ASKED, asked_scopes, pull_of, reading


def test_the_mirrors_own_scope_is_that_of_the_specification() -> None:
    assert pull_of("library/redis") == "repository:library/redis:pull"


@pytest.mark.parametrize(
    ("named", "kept"),
    [
        ("repository:library/redis:pull", "repository:library/redis:pull"),
        ("repository:a/b:pull,push", "repository:a/b:pull"),
        ("repository:a/b:push,pull,delete", "repository:a/b:pull"),
        ("repository:a/b:*", "repository:a/b:pull"),
        ("repository:a/b:*,pull", "repository:a/b:pull"),
        ("repository(plugin):a/b:pull", "repository(plugin):a/b:pull"),
        ("repository:a/b:metadata_read", "repository:a/b:metadata_read"),
        ("repository:a/b:content/read,content/write", "repository:a/b:content/read"),
        ("repository:host:5000/a/b:pull", "repository:host:5000/a/b:pull"),
        ("Repository:A/B:pull", "Repository:A/B:pull"),
        ("repository:a:pull repository:b:pull", "repository:a:pull repository:b:pull"),
        ("  repository:a:pull   repository:a:pull ", "repository:a:pull"),
        ("repository:a:pull repository:b:push", "repository:a:pull"),
        # Nothing that changes anything, in whatever words.
        ("repository:a/b:push", ""),
        ("repository:a/b:delete", ""),
        ("repository:a/b:metadata_write", ""),
        ("repository:a/b:readwrite", ""),
        ("repository:a/b:spread", ""),
        ("repository:a/b:PULL,Push", ""),
        ("registry:catalog:*", ""),
        ("repository:a/b:", ""),
        ("repository::pull", ""),
        (":a/b:pull", ""),
        ("a:pull", ""),
        ("", ""),
        ("repository:a\u00e4:pull", ""),
        ("repository:" + "a" * 5000 + ":pull", ""),
        ("repository:" + "a" * 5000 + ":pull repository:b:pull", "repository:b:pull"),
    ],
)
@pytest.mark.parametrize("opaque", [True, False])
def test_only_reading_is_asked_for(named: str, kept: str, opaque: bool) -> None:
    assert reading(named, opaque) == kept


@pytest.mark.parametrize("word", ["aws", "*", "openid"])
def test_a_word_that_says_nothing_is_asked_for_by_the_anonymous_alone(word: str) -> None:
    assert reading(word, opaque=True) == word
    assert reading(word, opaque=False) == ""


def test_how_many_are_asked_for_is_bounded() -> None:
    named = " ".join(f"repository:{number}:pull" for number in range(10_000))
    assert len(reading(named, opaque=False).split()) == 64
    named = " ".join(f"repository:{'a' * 1000}{number}:pull" for number in range(10_000))
    assert len(reading(named, opaque=False)) < 2048
    named = "repository:a:" + ",".join(f"{a}{b}_read" for a in ascii_lowercase for b in "abcdefgh")
    assert len(reading(named, opaque=False).split(",")) == 64


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (["repository:team/app:pull"], {"team/app": {"pull"}}),
        (["repository:a/b:pull repository:a/b:pull,push"], {"a/b": {"pull", "push"}}),
        (["repository:a/b:pull", "repository:c/d:*"], {"a/b": {"pull"}, "c/d": {"*"}}),
        (["registry:catalog:*"], {"registry:catalog": {"*"}}),
        (["registry:other:*", "registry:*", "", " ", ":::", "x", "repository:a/b"], {}),
        (["repository:a/b:pull:x"], {}),
        (["repository:../x:pull", "repository:A:pull", "repository::pull"], {}),
        (["repository(plugin):a/b:pull"], {}),
        (["repository:a/b:"], {"a/b": set()}),
        ([f"repository:{'a' * 256}:pull"], {}),
    ],
)
def test_what_clients_ask_a_token_for(texts: list[str], asked: dict[str, set[str]]) -> None:
    assert asked_scopes(texts) == asked


def test_a_token_is_for_so_many_repositories_and_no_more() -> None:
    many = " ".join(f"repository:a/r{number}:pull" for number in range(1000))
    assert len(asked_scopes([many])) == MOST_ASKED
    assert len(asked_scopes(many.split())) == MOST_ASKED
    actions = ",".join(map(str, range(1000)))
    assert len(asked_scopes([f"repository:a/b:{actions}"])["a/b"]) < 20
