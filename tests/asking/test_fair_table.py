"""A table of which each registry keeps its part."""

from __future__ import annotations

from mirror.asking.fair_table import FairTable


def test_a_registry_pushes_out_nothing_of_one_that_has_less() -> None:
    table: FairTable[int, str] = FairTable(10)
    for key in range(3):
        table.put("quay.io", key, "kept")
    for key in range(1000):
        table.put("evil.example", key, "noise")
    assert [table.get("quay.io", key) for key in range(3)] == ["kept"] * 3
    assert len(table) == 10
    assert [table.get("evil.example", key) for key in (992, 993)] == [None, "noise"]


def test_what_is_used_stays_longest_in_its_registrys_part() -> None:
    table: FairTable[int, str] = FairTable(2)
    table.put("quay.io", 1, "one")
    table.put("quay.io", 2, "two")
    assert table.get("quay.io", 1) == "one"
    table.put("quay.io", 3, "three")
    assert table.get("quay.io", 2) is None
    assert table.get("quay.io", 1) == "one"


def test_a_registry_that_is_forgotten_leaves_its_room() -> None:
    table: FairTable[int, str] = FairTable(2)
    table.put("quay.io", 1, "one")
    table.put("quay.io", 1, "one again")
    table.put("ghcr.io", 1, "other")
    table.forget("quay.io")
    assert len(table) == 1
    table.put("ghcr.io", 2, "more")
    assert table.get("ghcr.io", 1) == "other"


def test_what_is_dropped_leaves_its_room() -> None:
    table: FairTable[int, str] = FairTable(2)
    table.put("quay.io", 1, "one")
    table.drop("quay.io", 1)
    table.drop("quay.io", 1)
    table.drop("ghcr.io", 1)
    assert len(table) == 0
