"""Logins that a credential helper tells: when the program is asked, and when it is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from mirror.secret_text import SecretStr
from mirror.upstream.client import sources
from mirror.upstream.client.logins import OwnLogin
from mirror.upstream.client.remote import Remote
from mirror.upstream.endpoint import Endpoint, HelperLogin, IdentityToken, Login, NoLogin

from ..fakes import CONTEXT, HandClock
from ..fakes.hub import Hub
from ..waiting import eventually
from .conftest import REDIS, Counts, MakeRemote
from .test_logins import PRIVATE, PUBLIC, RIGHT, WRONG, misses, repositories, shown

NOT_FOUND = "docker-credential-it tells no login for the hub: 'credentials not found'"


class Program:
    """A LoginSource. `password` None: it fails."""

    def __init__(self, password: str | None) -> None:
        self.password = password
        self.asked = 0
        self.running: list[int] = []
        self.answers = threading.Event()
        self.answers.set()

    def ask(self) -> Login | IdentityToken:
        assert threading.current_thread() is not threading.main_thread()
        self.asked += 1
        self.running.append(self.asked)
        assert len(self.running) == 1, "one at a time"
        self.answers.wait()
        self.running.pop()
        if self.password is None:
            raise NoLogin(NOT_FOUND)
        return Login("ann", SecretStr(self.password))

    def place(self) -> str:
        return "docker-credential-it"


@pytest.fixture
def program() -> Program:
    return Program(RIGHT)


@pytest.fixture(params=["bearer", "basic"])
def private_hub(hub: Hub, request: pytest.FixtureRequest) -> Hub:
    hub.challenge, hub.login, hub.anonymous = request.param, ("ann", RIGHT), False
    for repository in (REDIS, PUBLIC, PRIVATE, *repositories(40)):
        hub.add_image(repository.name, "7")
    return hub


@pytest.fixture
def remote(hub: Hub, make_remote: MakeRemote, program: Program) -> Remote:
    login = HelperLogin("it", "it", "the hub", program)
    return make_remote(hub.url, credentials=(login,), realm=hub.realm_url)


async def test_it_is_asked_once_for_all_who_need_it_and_not_before(
    private_hub: Hub, remote: Remote, program: Program
) -> None:
    assert program.asked == 0
    assert await misses(remote, repositories(40)) == []
    assert program.asked == 1


async def test_what_needs_no_login_does_not_ask_it(
    hub: Hub, remote: Remote, program: Program
) -> None:
    hub.challenge = "none"
    hub.add_image(REDIS.name, "7")
    assert await misses(remote, [REDIS]) == []
    assert program.asked == 0


async def test_a_password_that_changes_is_asked_for_upon_its_first_refusal(
    private_hub: Hub, remote: Remote, program: Program, counts: Counts, time: HandClock
) -> None:
    for number in range(12):
        private_hub.login = ("ann", f"{RIGHT}-{number}")
        program.password = f"{RIGHT}-{number}"
        private_hub.revoke_tokens()
        assert await misses(remote, [REDIS, PUBLIC, PRIVATE]) == []
        assert program.asked == number + 1
        time.now += 1
    assert counts.logins == []


async def test_one_that_fails_is_not_run_for_each_pull_and_says_why(
    private_hub: Hub, remote: Remote, program: Program, counts: Counts, time: HandClock
) -> None:
    program.password = None
    with capture_logs() as logs:
        failed = await misses(remote, repositories(40))
        time.now += 50
        failed += await misses(remote, repositories(40))
    assert len(failed) == 80
    assert program.asked == 1
    for error in failed:
        assert NOT_FOUND in str(error)
        assert "; docker-credential-it is asked for it again at " in str(error)
    (said,) = [log for log in logs if log["event"] == "login_refused"]
    assert (said["log_level"], said["reason"]) == ("warning", NOT_FOUND)
    assert "docker-credential-it needs, run as the mirror's user" in said["hint"]
    assert counts.logins == [("hub", "it", True)]
    program.password = RIGHT
    time.now += 11
    assert await misses(remote, [REDIS, PUBLIC, PRIVATE]) == []
    assert program.asked == 2
    assert counts.logins == [("hub", "it", True), ("hub", "it", False)]


async def test_meanwhile_what_is_public_is_asked_for_without_it(
    hub: Hub, remote: Remote, program: Program
) -> None:
    program.password = None
    hub.login = ("ann", RIGHT)
    hub.add_image(PUBLIC.name, "7")
    for _ in range(3):
        assert await misses(remote, [PUBLIC]) == []
    assert program.asked == 1


async def test_a_wrong_password_of_its_is_shown_seldom_and_the_program_run_seldom(
    private_hub: Hub, remote: Remote, program: Program, time: HandClock
) -> None:
    program.password = WRONG
    failed = await misses(remote, repositories(40))
    time.now += 50
    failed += await misses(remote, repositories(40))
    assert len(failed) == 80
    assert len(shown(private_hub, WRONG)) <= 2
    assert program.asked <= 3
    assert "refuses the login 'it'; docker-credential-it is asked for it again" in str(failed[-1])


async def test_a_reload_has_it_asked_before_its_rest_ends(
    private_hub: Hub, remote: Remote, program: Program
) -> None:
    program.password = None
    assert len(await misses(remote, [REDIS])) == 1
    program.password = RIGHT
    assert len(await misses(remote, [REDIS])) == 1
    remote.look_again()
    assert await misses(remote, [REDIS]) == []


async def test_repositories_that_are_refused_do_not_run_it_each_time(
    private_hub: Hub, remote: Remote, program: Program, counts: Counts
) -> None:
    private_hub.closed = {("ann", one.name) for one in repositories(40)}
    private_hub.closed_by = 403
    assert await misses(remote, [REDIS]) == []
    for repository in repositories(40):
        await misses(remote, [repository])
    assert await misses(remote, [PUBLIC, PRIVATE]) == []
    assert program.asked <= 6
    assert counts.logins == []


async def test_what_it_told_long_ago_is_asked_for_anew_and_nobody_waits(
    private_hub: Hub, remote: Remote, program: Program, time: HandClock
) -> None:
    assert await misses(remote, [REDIS]) == []
    time.now += 1801
    program.answers.clear()
    assert await misses(remote, [PUBLIC, PRIVATE]) == []
    await eventually(lambda: program.asked == 2)
    program.password = None  # and it has failed: what it told before stays
    program.answers.set()
    await eventually(lambda: program.running == [])
    time.now += 400
    assert await misses(remote, [REDIS, PUBLIC]) == []


async def test_one_that_hangs_holds_nobody_for_ever_and_is_begun_once(
    hub: Hub, make_remote: MakeRemote, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it cannot be ended."""
    monkeypatch.setattr(sources, "HELPER", 0.1)
    monkeypatch.setattr(sources, "_END", 0.1)
    program.answers.clear()
    hub.closed = {("", PRIVATE.name)}
    for repository in (PUBLIC, PRIVATE):
        hub.add_image(repository.name, "7")
    login = HelperLogin("it", "it", "the hub", program)
    remote = make_remote(hub.url, credentials=(login,), realm=hub.realm_url)
    assert await misses(remote, [PUBLIC]) == []
    (refused,) = await misses(remote, [PUBLIC, PRIVATE])
    assert "docker-credential-it tells no login: it does not end" in str(refused)
    assert program.asked == 1
    program.answers.set()


async def test_whoever_leaves_while_it_runs_has_not_begun_it_in_vain(
    program: Program, time: HandClock
) -> None:
    own = OwnLogin("hub", HelperLogin("it", "it", "hub", program), time.clock(), Counts())

    async def prove(credentials: object) -> str | None:
        return None

    program.answers.clear()
    first = asyncio.ensure_future(own.admitted(prove))
    await eventually(lambda: program.asked == 1)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.ensure_future(own.admitted(prove))
    program.answers.set()
    assert (await second) == Login("ann", SecretStr(RIGHT))


async def test_an_identity_token_of_its_is_changed_by_the_realm(
    hub: Hub, make_remote: MakeRemote
) -> None:
    class Azure(Program):
        def ask(self) -> Login | IdentityToken:
            return IdentityToken("nobody", SecretStr("eyJ"))

    hub.anonymous, hub.identity_tokens = False, {"eyJ": "azure"}
    hub.add_image(REDIS.name, "7")
    login = HelperLogin("acr-env", "acr-env", "hub", Azure(None))
    remote = make_remote(hub.url, credentials=(login,), realm=hub.realm_url)
    await remote.resolve(CONTEXT, REDIS, "7")
    assert [form["refresh_token"] for form in hub.forms] == ["eyJ"]


@pytest.mark.parametrize(
    "other",
    [
        lambda: HelperLogin("it", "pass", "hub", Program(RIGHT)),
        lambda: HelperLogin("it", "it", "other", Program(RIGHT)),
        lambda: HelperLogin("AWS", "it", "hub", Program(RIGHT)),
    ],
)
def test_an_endpoint_with_another_helper_is_another_endpoint(
    other: Callable[[], HelperLogin],
) -> None:
    one, same = (HelperLogin("it", "it", "hub", Program(RIGHT)) for _ in range(2))
    assert one == same
    assert one != other()
    assert Endpoint("hub", "https://hub") == Endpoint("hub", "https://hub")
