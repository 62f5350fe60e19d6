"""A password that is wrong, or that changes, under a mirror that serves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ..e2e.programs import REPOSITORY
from ..fakes.hub import Hub, basic
from ..waiting import eventually
from .client import Answer
from .house import House, Mirror

RIGHT, WRONG = "right-and-secret", "wrong-and-secret"
PUBLIC = "library/nginx"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{WRONG}\n")
    return path


def with_login(hub: Hub, password: Path) -> dict[str, Any]:
    hub.login = ("ann", RIGHT)
    realm = {"realm": hub.realm_url} if hub.challenge == "bearer" else {}
    return {"credentials": {"username": "ann", "password_file": str(password)}, **realm}


def shown(hub: Hub, password: str) -> int:
    header = basic("ann", password)
    return sum(one.headers.get("Authorization") == header for one in hub.requests)


def write(path: Path, text: str) -> None:
    """As a timer does, that renews it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


async def miss(mirror: Mirror, count: int) -> set[int]:
    """As many images that are not here, at the same time; how they were answered."""
    asks = (mirror.manifest(f"v{number}", name=f"acme/app{number}") for number in range(count))
    return {answer.status for answer in await asyncio.gather(*asks)}


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_wrong_password_is_shown_seldom_said_loudly_and_mended_without_a_restart(
    house: House, password: Path, challenge: str, workers: int
) -> None:
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, challenge == "bearer"
    public = hub.add_image(PUBLIC, "1", b"public")
    private = hub.add_image("library/redis", "7", b"layer")
    if challenge == "bearer":
        hub.closed = {("", "library/redis")}
    mirror = await house.mirror(docker_io=with_login(hub, password), workers=workers)
    for _ in range(3):
        assert await miss(mirror, 20) <= {403, 404}
    assert 1 <= shown(hub, WRONG) <= 2 * workers
    if challenge == "bearer":
        assert (await mirror.manifest("1", name=PUBLIC)).is_whole(public)
    refused = await mirror.manifest("7")
    assert (refused.status, refused.code) == (403, "DENIED")
    assert "refuses the login 'ann'; it is shown again when its file" in refused.message
    # Each of the ways to learn of it.
    assert 1 <= len(mirror.events("login_refused")) <= workers
    assert await mirror.metric("upstream_login_refused", login="ann") == 1
    told = await eventually_told(mirror)
    assert "refuses the login 'ann': write the right password into its file" in told
    checked = command(mirror, "check")
    assert checked.returncode == 0
    assert "refuses the login 'ann'" in checked.stderr
    # Written anew, it is read by itself.
    write(password, f"{RIGHT}\n")

    async def is_there() -> bool:
        return (await mirror.manifest("7")).is_whole(private)

    await eventually(is_there)
    await eventually_not_told(mirror)
    assert shown(hub, WRONG) <= 2 * workers
    assert WRONG not in mirror.words()
    assert RIGHT not in mirror.words()


async def eventually_told(mirror: Mirror, word: str = "refuses") -> str:
    async def told() -> str:
        return command(mirror, "ready", "redis:7").stdout.replace("\n", " ")

    async def of_it() -> str:
        text = await told()
        return text if word in text else ""

    return str(await eventually(of_it))


async def eventually_not_told(mirror: Mirror) -> None:
    async def is_silent() -> bool:
        said = command(mirror, "check").stderr
        return "refuses" not in said and "tells no login" not in said

    await eventually(is_silent)


def command(mirror: Mirror, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mirror", *words, "--config", str(mirror.config)],
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_wrong_password_is_shown_once_for_all_registries_at_one_host(
    house: House, password: Path
) -> None:
    """As for a dozen projects of one Harbor, each a cache of another registry."""
    hub = house.hub
    hub.anonymous = False
    keys = with_login(hub, password)
    names = [f"registry{number}.test" for number in range(12)]
    others = {name: {"endpoints": [{"url": f"{hub.url}/v2/{name}"}], **keys} for name in names}
    mirror = await house.mirror(docker_io=keys, registries=others)
    await miss(mirror, 5)
    first = shown(hub, WRONG)
    assert 1 <= first <= 2
    await eventually(lambda: list(mirror.storage.glob("login-*.json")))
    for name in names:
        refused = await mirror.ask(f"/v2/acme/app/manifests/7?ns={name}")
        assert refused.status == 403
    assert shown(hub, WRONG) == first
    told = command(mirror, "check").stderr
    for name in ("docker.io", *names):
        assert f"{name}: " in told
    assert len(list(mirror.storage.glob("login-*.json"))) == 1
    write(password, RIGHT)
    for name in names:
        hub.add_image(f"{name}/acme/app", "7", b"layer")

    async def is_there() -> bool:
        asks = [mirror.ask(f"/v2/acme/app/manifests/7?ns={name}") for name in names]
        return all(answer.status == 200 for answer in await asyncio.gather(*asks))

    await eventually(is_there)


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
async def test_a_password_that_is_renewed_by_a_timer_costs_no_pull(
    house: House, password: Path, challenge: str
) -> None:
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, False
    write(password, RIGHT)
    names = [f"acme/app{number}" for number in range(9)]
    digests = [hub.add_image(name, "7", name.encode()) for name in names]
    mirror = await house.mirror(docker_io=with_login(hub, password))
    for number, (name, digest) in enumerate(zip(names, digests, strict=True)):
        if number % 3 == 0:
            hub.login = ("ann", f"{RIGHT}-{number}")
            hub.revoke_tokens()
            write(password, f"{RIGHT}-{number}")
        assert (await mirror.manifest("7", name=name)).is_whole(digest)
    assert mirror.events("login_refused") == []
    assert len(mirror.events("login_read_again")) == 3


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
async def test_a_key_file_of_several_lines_is_a_password(
    house: House, password: Path, challenge: str
) -> None:
    """Google's, for the user _json_key."""
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, False
    key = json.dumps({"type": "service_account", "private_key": "-----BEGIN\n" * 200}, indent=2)
    password.write_text(f"{key}\n")
    keys = with_login(hub, password)
    hub.login = ("_json_key", key)
    keys["credentials"]["username"] = "_json_key"
    digest = hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(docker_io=keys)
    assert (await mirror.manifest("7")).is_whole(digest)


@pytest.mark.parametrize(
    "keys",
    [
        {"identity_token_file": "PATH"},
        {"username": "00000000-0000-0000-0000-000000000000", "password_file": "PATH"},
    ],
)
async def test_an_identity_token_is_changed_by_the_realm_and_picked_up_when_it_changes(
    house: House, password: Path, keys: dict[str, str]
) -> None:
    hub = house.hub
    hub.anonymous, hub.identity_tokens = False, {"eyJ.first": "azure"}
    write(password, "eyJ.first\n")
    digests = [hub.add_image(f"acme/app{number}", "7", b"%d" % number) for number in range(4)]
    credentials = {key: value.replace("PATH", str(password)) for key, value in keys.items()}
    mirror = await house.mirror(
        docker_io={"credentials": credentials, "realm": hub.realm_url}, workers=2
    )
    for number, digest in enumerate(digests):
        if number == 2:
            hub.identity_tokens = {"eyJ.second": "azure"}
            hub.revoke_tokens()
            write(password, "eyJ.second\n")
        assert (await mirror.manifest("7", name=f"acme/app{number}")).is_whole(digest)
    assert {form["grant_type"] for form in hub.forms} == {"refresh_token"}
    assert mirror.events("login_refused") == []
    assert "eyJ" not in mirror.words()


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: Path) -> Path:
    """docker-credential-it, which tells what is in the file of the password, and counts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-it"
    program.write_text(
        f"""#!/bin/sh
        echo x >> {tmp_path}/asked
        [ -f {tmp_path}/hangs ] && sleep 1000
        secret=$(cat {password})
        [ -n "$secret" ] || {{ echo credentials not found in native keychain; exit 1; }}
        printf '{{"ServerURL": "%s", "Username": "ann", "Secret": "%s"}}' "$(cat)" "$secret"
        """
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return program


def path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


def asked(helper: Path) -> int:
    counted = helper.parent.parent / "asked"
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def with_helper(hub: Hub) -> dict[str, Any]:
    hub.login = ("ann", RIGHT)
    realm = {"realm": hub.realm_url} if hub.challenge == "bearer" else {}
    return {"credentials": {"username": "AWS", "credential_helper": "it"}, **realm}


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_credential_helper_tells_the_login_and_is_asked_again_when_that_changes(
    house: House, helper: Path, password: Path, challenge: str, workers: int
) -> None:
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, False
    password.write_text(RIGHT)
    digests = [hub.add_image(f"acme/app{number}", "7", b"%d" % number) for number in range(20)]
    mirror = await house.mirror(docker_io=with_helper(hub), workers=workers, env=path())
    assert asked(helper) == 0
    for half in (range(10), range(10, 20)):
        answers = await asyncio.gather(
            *(mirror.manifest("7", name=f"acme/app{number}") for number in half)
        )
        for number, answer in zip(half, answers, strict=True):
            assert answer.is_whole(digests[number])
        assert asked(helper) <= 2 * workers
        hub.login = ("ann", f"{RIGHT}-again")
        hub.revoke_tokens()
        password.write_text(f"{RIGHT}-again")
    assert mirror.events("login_refused") == []
    assert RIGHT not in mirror.words()


async def test_a_credential_helper_that_fails_is_named_wherever_it_matters(
    house: House, helper: Path, password: Path
) -> None:
    hub = house.hub
    public = hub.add_image(PUBLIC, "1", b"public")
    private = hub.add_image("library/redis", "7", b"layer")
    hub.closed = {("", "library/redis")}
    password.write_text("")
    mirror = await house.mirror(docker_io=with_helper(hub), env=path())
    assert (await mirror.manifest("1", name=PUBLIC)).is_whole(public)
    for _ in range(3):
        await miss(mirror, 20)
    assert asked(helper) == 1
    refused = await mirror.manifest("7")
    assert (refused.status, refused.code) == (403, "DENIED")
    words = "docker-credential-it tells no login for 127.0.0.1:"
    why = "credentials not found in native keychain"
    assert words in refused.message
    assert why in refused.message
    (said,) = mirror.events("login_refused")
    assert words in said["reason"]
    assert why in said["reason"]
    assert await mirror.metric("upstream_login_refused", login="AWS") == 1
    told = await eventually_told(mirror, why)
    assert words in told
    assert why in command(mirror, "check").stderr
    # Once it tells one, a reload is enough, and no rest is waited for.
    password.write_text(RIGHT)
    assert command(mirror, "reload").returncode == 0
    assert (await mirror.manifest("7")).is_whole(private)
    await eventually_not_told(mirror)


async def test_a_credential_helper_that_is_not_installed_is_told_and_stops_nothing(
    house: House,
) -> None:
    hub = house.hub
    digest = hub.add_image("library/redis", "7", b"layer")
    mirror = await house.mirror(docker_io={"credentials": {"credential_helper": "of-nobody"}})
    checked = command(mirror, "check")
    assert checked.returncode == 0
    words = "docker-credential-of-nobody is not on the PATH here: install it where the mirror runs"
    assert words in checked.stderr
    assert (await mirror.manifest("7")).is_whole(digest)


async def test_a_credential_helper_that_hangs_holds_up_nothing_that_is_here(
    house: House, helper: Path, password: Path, tmp_path: Path
) -> None:
    hub = house.hub
    hub.anonymous = False
    password.write_text(RIGHT)
    kept = hub.add_image("library/redis", "7", b"layer")
    other = hub.add_image("acme/app", "7", b"other")
    mirror = await house.mirror(docker_io=with_helper(hub), env=path())
    assert (await mirror.manifest("7")).is_whole(kept)
    await mirror.stop()
    await mirror.start()
    (tmp_path / "hangs").touch()
    asks = asked(helper)
    cold = asyncio.ensure_future(mirror.manifest("7", name="acme/app"))
    await eventually(lambda: asked(helper) > asks)
    assert (await mirror.manifest("7")).is_whole(kept)
    assert not cold.done()
    refused = await cold
    assert refused.status in (403, 503)
    assert "did not end within 10 s, and was ended" in refused.message
    (tmp_path / "hangs").unlink()
    assert command(mirror, "reload").returncode == 0
    assert (await mirror.manifest("7", name="acme/app")).is_whole(other)


def write_in_place(path: Path, text: str) -> None:
    """As `aws ecr get-login-password > file` does, which empties it first."""
    with path.open("w") as file:
        time.sleep(0.05)
        for half in (text[:5], text[5:]):
            file.write(half)
            file.flush()


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
@pytest.mark.parametrize("writing", [write, write_in_place])
async def test_no_pull_fails_while_a_timer_renews_the_password(
    house: House, password: Path, challenge: str, writing: Callable[[Path, str], None]
) -> None:
    """Two workers, and each image is asked for by one client."""
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, False
    write(password, RIGHT)
    mirror = await house.mirror(docker_io=with_login(hub, password), workers=2)
    numbers = iter(range(1000))
    renewed = asyncio.Event()
    pulled: list[list[Answer]] = [[] for _ in range(4)]

    async def pull_on(answers: list[Answer]) -> None:
        while not renewed.is_set():
            name = f"acme/app{next(numbers)}"
            hub.add_image(name, "7", name.encode())
            answers.append(await mirror.manifest("7", name=name))
            answers.append(await mirror.blob(hub.add_blob(name.encode()), name=name))

    def have_gone_on(since: list[int]) -> bool:
        return all(len(done) > n + 4 for done, n in zip(pulled, since, strict=True))

    pulls = [asyncio.ensure_future(pull_on(answers)) for answers in pulled]
    for number in range(5):
        await asyncio.to_thread(writing, password, f"{RIGHT}-{number}")
        hub.login = ("ann", f"{RIGHT}-{number}")
        await eventually(partial(have_gone_on, [len(answers) for answers in pulled]))
        assert shown(hub, f"{RIGHT}-{number}")
    renewed.set()
    await asyncio.gather(*pulls)
    answers = [answer for one in pulled for answer in one]
    assert [answer.message for answer in answers if answer.status != 200] == []
    assert mirror.events("login_refused") == []


@pytest.mark.parametrize("challenge", ["bearer", "basic"])
async def test_a_file_that_is_empty_for_a_while_leaves_the_login_as_it_was(
    house: House, password: Path, challenge: str
) -> None:
    """Also for a reload, and for one image that the login may not read."""
    hub = house.hub
    hub.challenge, hub.anonymous = challenge, False
    write(password, RIGHT)
    mirror = await house.mirror(docker_io=with_login(hub, password))

    async def pull(number: int) -> None:
        digest = hub.add_image(f"acme/app{number}", "7", b"%d" % number)
        assert (await mirror.manifest("7", name=f"acme/app{number}")).is_whole(digest)

    await pull(0)
    hub.closed = {("ann" if challenge == "bearer" else "", "acme/other")}
    for number, text in enumerate(("", "\n", "\0", "x" * 70_000), 1):
        password.write_text(text)
        assert (await mirror.manifest("7", name="acme/other")).status == 403
        assert command(mirror, "reload").returncode != 0
        await pull(number)
    password.unlink()
    assert (await mirror.manifest("7", name="acme/other")).status == 403
    await pull(9)
    hub.login = ("ann", f"{RIGHT}-again")
    write(password, f"{RIGHT}-again")
    await pull(10)
    assert mirror.events("login_refused") == []


async def test_a_refused_login_is_not_shown_again_by_a_mirror_that_is_restarted(
    house: House, password: Path
) -> None:
    hub = house.hub
    hub.anonymous = False
    mirror = await house.mirror(docker_io=with_login(hub, password))
    await miss(mirror, 5)
    before = shown(hub, WRONG)
    for _ in range(2):
        await mirror.stop()
        await mirror.start()
        await miss(mirror, 5)
    assert shown(hub, WRONG) == before
