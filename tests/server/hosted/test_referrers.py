"""Pages of referrers."""

from __future__ import annotations

import json

import pytest

from mirror.server.hosted.referrers import LARGEST, page


def listed(count: int, note: str = "") -> bytes:
    entries = [{"digest": f"sha256:{n:064x}", "annotations": {"a": note}} for n in range(count)]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def test_a_list_of_one_page_is_given_as_it_is() -> None:
    data = listed(3)
    assert page(data, None, None) == (data, None)


@pytest.mark.parametrize(("count", "note"), [(7, ""), (None, "A" * 300_000), (7, "A" * 700_000)])
def test_all_of_it_is_in_its_pages_once_each_of_a_bounded_size(
    count: int | None, note: str
) -> None:
    data, last, found = listed(30, note), None, []
    for _ in range(40):
        shown, last = page(data, last, count)
        assert len(shown) <= LARGEST + 1024
        found += json.loads(shown)["manifests"]
        if last is None:
            break
    assert found == json.loads(data)["manifests"]


def test_one_that_is_larger_than_a_page_is_a_page() -> None:
    data = listed(2, "A" * LARGEST)
    shown, last = page(data, None, None)
    assert len(json.loads(shown)["manifests"]) == 1
    assert last is not None
    assert page(data, last, None)[1] is None
