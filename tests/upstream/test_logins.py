"""Logins that are refused, and passwords that change, at a registry and at its token realm."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from mirror.oci.errors import Denied, RegistryError
from mirror.oci.reference import Repository
from mirror.secret_text import SecretStr
from mirror.storage.records.accounts import AccountRecords
from mirror.upstream.client import sources
from mirror.upstream.client.logins import OwnLogin
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import (
    Credentials,
    GivenToken,
    HelperLogin,
    IdentityToken,
    Login,
)
from mirror.upstream.failures import LoginRefused

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Hub, Seen, basic, status
from ..waiting import eventually
from .conftest import REDIS, Counts, MakeRemote

RIGHT, WRONG = "right:wörd", "wrong:wörd"
PUBLIC, PRIVATE = Repository("docker.io", "library/nginx"), Repository("docker.io", "acme/private")


@dataclass
class Written:
    """A SecretSource: what stands in a file by now."""

    text: str
    writes: int = 0
    reads: int = 0

    def write(self, text: str) -> None:
        self.text, self.writes = text, self.writes + 1

    def read(self) -> SecretStr | None:
        self.reads += 1
        return SecretStr(self.text) if self.text else None

    def stamp(self) -> str:
        return f"{self.writes}"

    def place(self) -> str:
        return "/run/secrets/it"


@pytest.fixture
def written() -> Written:
    return Written(WRONG)


def login(written: Written) -> Login:
    return Login("ann", SecretStr(written.text), written)


@pytest.fixture(params=["bearer", "basic"])
def hub_of_ann(hub: Hub, request: pytest.FixtureRequest) -> Hub:
    """One that lets ann read all, and everybody else nothing."""
    hub.challenge, hub.login, hub.anonymous = request.param, ("ann", RIGHT), False
    for repository in (REDIS, PUBLIC, PRIVATE):
        hub.add_image(repository.name, "7")
    return hub


@pytest.fixture
def ask(hub: Hub, make_remote: MakeRemote, written: Written) -> Remote:
    return make_remote(hub.url, credentials=(login(written),), realm=hub.realm_url)


def shown(hub: Hub, password: str) -> list[Seen]:
    """The requests that showed ann's password."""
    header = basic("ann", password)
    return [one for one in hub.requests if one.headers.get("Authorization") == header]


def repositories(count: int) -> list[Repository]:
    return [Repository("docker.io", f"acme/app{number}") for number in range(count)]


async def misses(remote: Remote, asked: list[Repository]) -> list[RegistryError]:
    """All of them at the same time."""
    results = await asyncio.gather(
        *(remote.resolve(CONTEXT, repository, "7") for repository in asked), return_exceptions=True
    )
    return [result for result in results if isinstance(result, RegistryError)]


async def test_a_wrong_password_is_not_shown_for_each_miss(
    hub_of_ann: Hub, ask: Remote, counts: Counts, time: HandClock
) -> None:
    with capture_logs() as logs:
        failed = await misses(ask, repositories(40))
        time.now += 50
        failed += await misses(ask, repositories(40))
    assert len(failed) == 80
    assert all(isinstance(error, Denied) for error in failed)
    assert len(shown(hub_of_ann, WRONG)) <= 2
    (refused,) = [log for log in logs if log["event"] == "login_refused"]
    assert (refused["log_level"], refused["login"]) == ("warning", "ann")
    assert counts.logins == [("hub", "ann", True)]
    for error in failed[40:]:
        assert "refuses the login 'ann'; it is shown again when its file is written" in str(error)
    assert "wörd" not in f"{logs} {failed}"


async def test_how_long_it_rests_doubles_from_a_minute_to_fifteen(
    hub_of_ann: Hub, ask: Remote, time: HandClock
) -> None:
    rests = []
    await misses(ask, [REDIS])
    for _ in range(6):
        before, rested_at = len(shown(hub_of_ann, WRONG)), time.now
        while len(shown(hub_of_ann, WRONG)) == before:
            time.now += 20
            await misses(ask, repositories(3))
        assert len(shown(hub_of_ann, WRONG)) == before + 1
        rests.append(time.now - rested_at)
    assert rests == [60, 120, 240, 480, 900, 900]


async def test_what_is_public_is_asked_for_without_a_login_meanwhile(hub: Hub, ask: Remote) -> None:
    hub.login = ("ann", RIGHT)
    digest = hub.add_image(PUBLIC.name, "7", b"layer")
    for _ in range(3):
        assert str((await ask.resolve(CONTEXT, PUBLIC, "7")).digest) == digest
    assert len(shown(hub, WRONG)) == 2


async def test_a_limit_without_a_login_is_none_on_the_login(
    hub: Hub, ask: Remote, written: Written, time: HandClock
) -> None:
    hub.login, hub.limit = ("ann", RIGHT), 2
    digest = (
        (await ask.resolve(CONTEXT, PUBLIC, "7")).digest
        if hub.add_image(PUBLIC.name, "7")
        else None
    )
    assert digest is not None
    hub.pulls[""] = 2
    with pytest.raises(RegistryError, match="without a login, pulls none before"):
        await ask.manifest(CONTEXT, PUBLIC, digest)
    written.write(RIGHT)
    time.now += 1
    await ask.manifest(CONTEXT, PUBLIC, digest)
    assert hub.pulls == {"": 2, "ann": 1}


async def test_the_corrected_file_is_read_at_once_and_nothing_is_restarted(
    hub_of_ann: Hub, ask: Remote, written: Written, time: HandClock, counts: Counts
) -> None:
    await misses(ask, repositories(5))
    reads = written.reads
    time.now += 30
    await misses(ask, repositories(5))
    assert written.reads == reads  # it rests, and its file is as it was
    written.write(RIGHT)
    time.now += 1
    assert await misses(ask, [REDIS, PUBLIC, PRIVATE]) == []
    assert counts.logins == [("hub", "ann", True), ("hub", "ann", False)]
    assert len(shown(hub_of_ann, WRONG)) <= 2


async def test_a_password_that_changes_is_picked_up_upon_its_first_refusal(
    hub_of_ann: Hub, make_remote: MakeRemote, time: HandClock, counts: Counts
) -> None:
    written = Written(RIGHT)
    realm = hub_of_ann.realm_url
    remote = make_remote(hub_of_ann.url, credentials=(login(written),), realm=realm)
    await remote.resolve(CONTEXT, REDIS, "7")
    for number in range(3):
        new = f"{number}. {RIGHT}"
        hub_of_ann.login = ("ann", new)
        hub_of_ann.revoke_tokens()
        written.write(new)
        time.now += 12 * 3600
        assert await misses(remote, [REDIS, PUBLIC, PRIVATE]) == []
    assert counts.logins == []
    assert written.reads <= 9


@pytest.mark.parametrize("code", [401, 403])
async def test_a_registry_that_says_403_to_an_old_password_is_understood(
    hub: Hub, ask: Remote, written: Written, code: int
) -> None:
    """As Amazon's do."""
    hub.challenge, hub.login = "basic", ("ann", WRONG)
    hub.add_image(REDIS.name, "7")
    await ask.resolve(CONTEXT, REDIS, "7")
    hub.login = ("ann", RIGHT)
    written.write(RIGHT)
    hub.fail("registry", status(code))
    await ask.resolve(CONTEXT, REDIS, "7")


@pytest.mark.parametrize("code", [401, 403])
async def test_a_repository_that_the_login_may_not_read_does_not_take_it_from_the_others(
    hub_of_ann: Hub, make_remote: MakeRemote, time: HandClock, counts: Counts, code: int
) -> None:
    """Some realms refuse the scope with the same words as a wrong password."""
    remote = make_remote(
        hub_of_ann.url,
        credentials=(Login("ann", SecretStr(RIGHT), Written(RIGHT)),),
        realm=hub_of_ann.realm_url,
    )

    async def not_for_it(request: web.Request) -> web.StreamResponse | None:
        asked = request.query.get("scope", request.path)
        return web.Response(status=code) if PRIVATE.name in asked else None

    for server in ("realm", "registry"):
        hub_of_ann.fail(server, not_for_it, times=1000)
    for _ in range(5):
        (error,) = await misses(remote, [PRIVATE])
        assert isinstance(error, Denied)
        assert await misses(remote, [REDIS, PUBLIC]) == []
        time.now += 600
    assert counts.logins == []


async def test_another_login_is_shown_while_one_is_refused(
    hub: Hub, make_remote: MakeRemote, written: Written
) -> None:
    hub.more_logins, hub.anonymous = [("bob", "two")], False
    hub.login = ("ann", RIGHT)
    for repository in (REDIS, PUBLIC):
        hub.add_image(repository.name, "7")
    both = (login(written), Login("bob", SecretStr("two")))
    remote = make_remote(hub.url, credentials=both, realm=hub.realm_url)
    for _ in range(3):
        assert await misses(remote, [REDIS, PUBLIC]) == []
    assert len(shown(hub, WRONG)) <= 2


async def test_a_given_token_that_has_ended_is_read_again_or_left_out(
    hub: Hub, make_remote: MakeRemote, time: HandClock, counts: Counts
) -> None:
    hub.add_image(REDIS.name, "7")
    hub.tokens["first"] = hub.tokens["second"] = f"repository:{REDIS.name}:pull"
    written = Written("first")
    remote = make_remote(hub.url, credentials=(GivenToken(SecretStr("first"), written),))
    await remote.resolve(CONTEXT, REDIS, "7")
    del hub.tokens["first"]
    written.write("second")
    await remote.resolve(CONTEXT, REDIS, "7")
    del hub.tokens["second"]
    time.now += 600

    async def knows_no_such_token(request: web.Request) -> web.StreamResponse | None:
        ended = "second" in request.headers.get("Authorization", "")
        return web.Response(status=401) if request.path == "/v2/" and ended else None

    hub.fail("registry", knows_no_such_token, times=1000)
    await remote.resolve(CONTEXT, REDIS, "7")  # it is public
    assert counts.logins == [("hub", "token", True)]


async def test_a_file_that_is_gone_or_unreadable_leaves_the_login_as_it_was(
    hub_of_ann: Hub, make_remote: MakeRemote, time: HandClock
) -> None:
    gone = Written("")
    remote = make_remote(
        hub_of_ann.url,
        credentials=(Login("ann", SecretStr(RIGHT), gone),),
        realm=hub_of_ann.realm_url,
    )
    assert await misses(remote, [REDIS]) == []
    hub_of_ann.revoke_tokens()
    hub_of_ann.login = ("ann", "changed")
    time.now += 600
    assert len(await misses(remote, [REDIS])) == 1
    gone.write("changed")
    time.now += 1
    assert await misses(remote, [REDIS]) == []


class Gone(Written):
    """On a share that has gone: whoever looks there is held until it is back."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.back = threading.Event()
        self.back.set()

    def read(self) -> SecretStr | None:
        self.back.wait()
        return super().read()

    def stamp(self) -> str:
        self.back.wait()
        return super().stamp()


async def test_a_share_that_is_gone_holds_no_pull_that_needs_no_secret_of_it(
    hub: Hub, make_remote: MakeRemote, time: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SECRET", 0.2)
    gone = Gone(WRONG)
    hub.login = ("ann", RIGHT)
    hub.closed = {("", PRIVATE.name)}
    for repository in (PUBLIC, PRIVATE):
        hub.add_image(repository.name, "7")
    remote = make_remote(hub.url, credentials=(login(gone),), realm=hub.realm_url)
    assert len(await misses(remote, [PRIVATE])) == 1
    gone.back.clear()
    for _ in range(30):  # its rest ends, and it is tried again
        time.now += 60
        assert await misses(remote, [PUBLIC]) == []
    assert len(await misses(remote, [PRIVATE])) == 1
    gone.write(RIGHT)
    gone.back.set()

    async def is_read() -> bool:
        time.now += 1
        return await misses(remote, [PRIVATE]) == []

    await eventually(is_read)


@pytest.mark.parametrize("code", [429, 500])
async def test_a_realm_that_has_trouble_refuses_nobody(
    hub: Hub, ask: Remote, counts: Counts, code: int
) -> None:
    hub.fail("realm", status(code), times=1000)
    assert len(await misses(ask, [REDIS, PUBLIC])) == 2
    assert counts.logins == []


async def test_a_refusal_is_known_to_other_processes_and_after_a_restart(
    hub_of_ann: Hub, make_remote: MakeRemote, written: Written, time: HandClock, tmp_path: Path
) -> None:
    def process() -> tuple[Remote, AccountRecords]:
        records = AccountRecords(tmp_path)
        credentials = (login(written),)
        remote = make_remote(
            hub_of_ann.url, credentials=credentials, realm=hub_of_ann.realm_url, notes=records
        )
        return remote, records

    first, records = process()
    await misses(first, [REDIS])
    tries = len(shown(hub_of_ann, WRONG))
    await eventually(lambda: list(tmp_path.glob("login-*.json")))
    second, others = process()
    assert len(await misses(second, repositories(5))) == 5
    assert len(shown(hub_of_ann, WRONG)) == tries
    # Once it was written anew, nobody waits for the rest to end.
    written.write(RIGHT)
    third, more = process()
    assert await misses(third, [REDIS]) == []
    for one in (records, others, more):
        one.close()


class Variable(Written):
    """In the environment: it has no stamp."""

    def stamp(self) -> str:
        return ""


class Helper(Written):
    """A LoginSource."""

    def ask(self) -> Login | IdentityToken:
        return Login("ann", SecretStr(self.text))


@pytest.mark.parametrize("kept_in", [Variable, Helper])
async def test_a_refusal_of_what_is_in_no_file_is_known_to_other_processes_too(
    hub_of_ann: Hub,
    make_remote: MakeRemote,
    time: HandClock,
    tmp_path: Path,
    kept_in: type[Variable] | type[Helper],
) -> None:
    def process(secret: str) -> Remote:
        source = kept_in(secret)
        one: Login | HelperLogin = Login("ann", SecretStr(secret), source)
        if isinstance(source, Helper):
            one = HelperLogin("ann", "it", "hub", source)
        realm, records = hub_of_ann.realm_url, AccountRecords(tmp_path)
        return make_remote(hub_of_ann.url, credentials=(one,), realm=realm, notes=records)

    (error,) = await misses(process(WRONG), [REDIS])
    assert "file" not in str(error)
    tries = len(shown(hub_of_ann, WRONG))
    await eventually(lambda: list(tmp_path.glob("login-*.json")))
    for _ in range(3):
        assert len(await misses(process(WRONG), repositories(5))) == 5
    assert len(shown(hub_of_ann, WRONG)) == tries
    assert WRONG not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert await misses(process(RIGHT), [REDIS]) == []


async def test_a_proof_that_was_broken_off_is_begun_anew_by_who_comes_next(time: HandClock) -> None:
    """Whoever began it is not waited for any more: another endpoint was faster."""
    own = OwnLogin("it", Login("ann", SecretStr(WRONG)), time.clock(), Counts())
    proofs: list[asyncio.Future[str]] = []

    async def prove(credentials: Credentials) -> str:
        proofs.append(asyncio.get_running_loop().create_future())
        return await proofs[-1]

    first = asyncio.ensure_future(own.proven(prove))
    await eventually(lambda: len(proofs) == 1)
    first.cancel()
    await asyncio.wait([first])
    others = [asyncio.ensure_future(own.proven(prove)) for _ in range(5)]
    await eventually(lambda: len(proofs) == 2)
    proofs[1].set_result("its realm")
    refused = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(one, LoginRefused) for one in refused)
    assert len(proofs) == 2
