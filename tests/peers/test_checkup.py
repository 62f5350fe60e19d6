"""What doctor and `check --online` tell of a fleet."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest

from mirror import config
from mirror.app.doctor.findings import Diagnosis, Mark
from mirror.app.doctor.fleet import nodes
from mirror.server.http.sending import Sender

from .test_port_and_client import SECRET, listening, saying, sender, stub

__all__ = ["sender"]

NOBODY = "http://127.0.0.1:9"


async def told(own: str, *others: str) -> Sequence[Diagnosis]:
    listed = ", ".join(f"'{url}'" for url in (own, *others))
    parsed = config.parse(
        "tags: {store: 'redis://127.0.0.1:1/0'}\n"
        f"fleet: {{listen: '127.0.0.1:5003', url: '{own}', secret_env: FLEET_SECRET,"
        f" nodes: [{listed}]}}",
        "mirror.yaml",
    )
    return [each async for each in nodes(parsed)]


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_SECRET", SECRET.decode())


async def test_where_all_is_well_each_node_is_told_of(sender: Sender) -> None:
    async with listening(sender) as own, listening(sender) as other:
        own.wall.now = other.wall.now = time.time()
        found = await told(own.url, other.url)
        assert [each.mark for each in found] == [Mark.GOOD] * 3
        assert [each.subject for each in found] == ["fleet.url", "fleet.nodes", other.url]


async def test_clocks_are_told_of_before_and_when_they_part_a_fleet(sender: Sender) -> None:
    async with listening(sender) as own, listening(sender) as late, listening(sender) as lost:
        own.wall.now = time.time()
        late.wall.now, lost.wall.now = time.time() - 20, time.time() - 200
        by_subject = {each.subject: each for each in await told(own.url, late.url, lost.url)}
        assert by_subject[late.url].mark is Mark.WARN
        assert re.search(r"its clock is (19|2\d) s behind", by_subject[late.url].words)
        assert by_subject[lost.url].mark is Mark.BAD
        assert " s behind" in by_subject[lost.url].words


async def test_another_secret_and_nobody_at_all(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(sender) as other:
        other.wall.now = time.time()
        monkeypatch.setenv("FLEET_SECRET", SECRET.decode()[::-1])
        own, named, refused = await told(NOBODY, other.url)
        assert (own.subject, own.mark) == ("fleet.url", Mark.WARN)
        assert "connection refused" in own.words
        assert named.mark is Mark.GOOD
        assert refused.mark is Mark.BAD
        assert "not signed by this fleet's secret" in refused.words


async def test_another_mirror_that_was_given_the_same_url(sender: Sender) -> None:
    """As where one file was copied to all machines as it was."""
    async with listening(sender, store="of the other one") as other:
        other.wall.now = time.time()
        own, _ = await told(other.url)
        assert own.mark is Mark.BAD
        assert "leads to another mirror" in own.words


@pytest.mark.parametrize(
    "answer",
    [saying("HTTP/1.1 200 OK", "Content-Length: 2", body=b"ok"), saying("220 smtp")],
    ids=["a web site", "no HTTP"],
)
async def test_a_url_that_leads_to_something_else(answer: object) -> None:
    async with stub(answer) as url:  # type: ignore[arg-type]
        own, _ = await told(url)
        assert own.mark is Mark.BAD
        assert "it leads to something else" in own.mend
