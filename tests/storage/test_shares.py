"""What all share and has a bound: who gives up how much of it."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from mirror.storage import shares
from mirror.storage.shares import ByRepository, surplus, surplus_of_repositories

COUNTS = st.dictionaries(
    st.sampled_from([f"{r}/{n}" for r in "abc" for n in range(4)]), st.integers(0, 30)
)


def test_its_examples() -> None:
    assert doctest.testmod(shares).failed == 0


@given(COUNTS, st.integers(0, 400))
def test_so_many_go_and_nobody_with_less_gives_more(counts: dict[str, int], count: int) -> None:
    given = surplus(counts, count)
    assert sum(given.values()) == min(count, sum(counts.values()))
    left = {name: here - given.get(name, 0) for name, here in counts.items()}
    assert all(here >= 0 for here in left.values())
    assert all(left[name] >= left[giver] - 1 for giver in given for name in given)
    assert all(counts[name] <= left[giver] + 1 for giver in given for name in counts.keys() - given)


@given(COUNTS, st.integers(0, 400))
def test_of_repositories_too(counts: dict[str, int], count: int) -> None:
    given = surplus_of_repositories(counts, count)
    assert sum(given.values()) == min(count, sum(counts.values()))
    assert all(0 < many <= counts[name] for name, many in given.items())


def test_a_registry_with_less_than_its_share_gives_nothing() -> None:
    counts = {f"docker.io/{number}": 1 for number in range(100)} | {"quay.io/app": 40}
    assert "quay.io/app" not in surplus_of_repositories(counts, 60)


def test_what_is_added_to_one_repository_pushes_out_its_own() -> None:
    values: ByRepository[int] = ByRepository(10)
    for number in range(4):
        values[f"docker.io/hot:{number}"] = number
    for number in range(100):
        values[f"docker.io/flood:{number}"] = number
    assert len(values) == 10
    assert all(f"docker.io/hot:{number}" in values for number in range(4))
    assert [values.get(f"docker.io/flood:{number}") for number in (0, 93, 94)] == [None, None, 94]


def test_what_is_set_again_is_the_newest_and_counts_once() -> None:
    values: ByRepository[int] = ByRepository(2)
    values["a/x:1"], values["a/x:2"], values["a/x:1"], values["a/x:3"] = 1, 2, 3, 4
    assert dict(values.items()) == {"a/x:1": 3, "a/x:3": 4}
    values.pop("a/x:1")
    values.pop("a/x:1")
    assert (len(values), values["a/x:3"]) == (1, 4)
