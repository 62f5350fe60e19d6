"""`check --online`: what it tells of registries that are there, and of those that refuse."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from .commands import Done, ran
from .fakes.hub import Hub, basic, page, status
from .fakes.proxy import FakeProxy
from .faults.servers import babbles, bare, certificate, https
from .test_cli import free_port

PASSWORD = "right-and-secret"


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


class Checked:
    """What `check --online` said of one endpoint, each step's mark and words."""

    def __init__(self, done: Done) -> None:
        self.done = done
        self.steps: dict[str, tuple[str, str]] = {}
        for line in done.stdout.splitlines():
            if line.startswith("  "):
                mark, step, words = line.split(maxsplit=2)
                self.steps[step] = mark, words

    def marks(self) -> dict[str, str]:
        return {step: mark for step, (mark, _) in self.steps.items()}

    def words(self, step: str) -> str:
        return self.steps[step][1]


class Desk:
    """Where the command is given: a folder with a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mirror.yaml"
        self.password = folder / "password"
        self.password.write_text(f"{PASSWORD}\n")

    def login(self) -> dict[str, str]:
        return {"username": "ann", "password_file": str(self.password)}

    async def check(self, *images: str, keys: object = None, **registries: object) -> Checked:
        """`registries`: by their names, with underscores for dots."""
        named = {name.replace("_", "."): keys for name, keys in registries.items()}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "storage": {"path": str(self.folder / "store")},
                    "registries": named,
                    **(keys if isinstance(keys, dict) else {}),
                }
            )
        )
        return Checked(await ran("check", "--online", "--config", self.config, *images))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def at(url: str, **keys: object) -> dict[str, object]:
    return {"endpoints": [{"url": url}], **keys}


async def test_each_step_of_a_good_endpoint_is_told(desk: Desk, hub: Hub) -> None:
    hub.login, hub.limit = ("ann", PASSWORD), 100
    digest = hub.add_image("library/redis", "7", b"layer")
    checked = await desk.check(
        "redis:7",
        docker_io=at(hub.url, credentials=desk.login(), realm=hub.realm_url),
    )
    assert checked.done.status == 0, checked.done
    assert set(checked.marks().values()) == {"ok"}
    assert hub.url.removeprefix("http://") in checked.words("connection")
    assert "a registry" in checked.words("registry")
    assert hub.realm_url in checked.words("token")
    assert "'ann'" in checked.words("login")
    assert str(desk.password) in checked.words("login")
    assert digest in checked.words("image")
    assert "100 of 100 pulls" in checked.words("image")
    assert hub.pulls.total() == 0  # none was spent
    assert PASSWORD not in checked.done.stdout + checked.done.stderr
    assert not (desk.folder / "store").exists()


async def test_a_pipe_gets_plain_words(desk: Desk, hub: Hub) -> None:
    checked = await desk.check(docker_io=at(hub.url))
    assert "\x1b" not in checked.done.stdout
    assert checked.done.stderr == ""


async def test_endpoints_are_told_in_the_order_of_the_configuration(desk: Desk, hub: Hub) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    checked = await desk.check(
        docker_io={"endpoints": [{"url": nobody}, {"url": hub.url, "trust": "content"}]},
        ghcr_io=at(hub.url),
    )
    heads = [line for line in checked.done.stdout.splitlines() if line.startswith(("docker", "gh"))]
    assert heads == [
        f"docker.io: {nobody}",
        f"docker.io: {hub.url} (trust: content)",
        f"ghcr.io: {hub.url}",
    ]
    assert "1 of 3 endpoints failed" in checked.done.stdout
    assert checked.done.status == 1


async def test_a_refused_login_is_shown_once_and_its_file_is_named(desk: Desk, hub: Hub) -> None:
    """Also where several endpoints have it: registries lock out those who try too often."""
    hub.login = ("ann", "another")
    checked = await desk.check(
        docker_io={
            "endpoints": [{"url": hub.url}, {"url": hub.url.replace("127.0.0.1", "localhost")}],
            "credentials": desk.login(),
            "realm": hub.realm_url,
        },
    )
    assert checked.done.status == 1
    mark, words = checked.steps["login"]
    assert mark == "FAIL"
    assert "'ann'" in words
    assert hub.realm_url in words
    assert str(desk.password) in words
    assert "Write the right password into its file" in words
    assert shown(hub) == 1


def shown(hub: Hub) -> int:
    header = basic("ann", PASSWORD)
    return sum(one.headers.get("Authorization") == header for one in hub.requests)


async def test_a_login_that_rests_is_not_shown_again(desk: Desk, hub: Hub) -> None:
    hub.login = ("ann", "another")
    (desk.folder / "store").mkdir()
    registry = at(hub.url, credentials=desk.login(), realm=hub.realm_url)
    first = await desk.check(docker_io=registry)
    second = await desk.check(docker_io=registry)
    assert shown(hub) == 1
    assert "is refused" in first.words("login")
    assert "is not shown now" in second.words("login")
    assert "UTC" in second.words("login")
    assert second.done.status == 1
    desk.password.write_text("another\n")
    third = await desk.check(docker_io=registry)
    assert third.marks()["login"] == "ok"
    assert third.done.status == 0


async def test_a_login_that_its_realm_may_not_see_is_said_to_be_withheld(
    desk: Desk, hub: Hub
) -> None:
    hub.login = ("ann", PASSWORD)
    elsewhere = hub.realm_url.replace("127.0.0.1", "localhost")
    hub.realm_url = elsewhere
    checked = await desk.check(docker_io=at(hub.url, credentials=desk.login()))
    assert checked.marks()["login"] == "FAIL"
    assert f"write realm: {elsewhere}" in checked.words("login")
    assert shown(hub) == 0


async def test_a_basic_login_is_proven_by_the_registry(desk: Desk, hub: Hub) -> None:
    hub.challenge, hub.login, hub.anonymous = "basic", ("ann", PASSWORD), False
    registry = at(hub.url, credentials=desk.login())
    assert (await desk.check(docker_io=registry)).marks()["login"] == "ok"
    hub.login = ("ann", "another")
    hub.requests.clear()
    checked = await desk.check(docker_io=registry)
    assert checked.marks()["login"] == "FAIL"
    assert shown(hub) == 1


async def test_an_image_that_is_not_there_fails(desk: Desk, hub: Hub) -> None:
    checked = await desk.check("redis:8", docker_io=at(hub.url))
    assert checked.marks()["image"] == "FAIL"
    assert "library/redis" in checked.words("image")
    assert checked.done.status == 1


async def test_a_path_is_said_to_stand_where_it_was_found(desk: Desk, hub: Hub) -> None:
    hub.add_image("hub/library/redis", "7", b"layer")
    hub.elsewhere = page()
    done = await desk.check("redis:7", docker_io=at(f"{hub.url}/hub"))
    assert done.done.status == 0
    assert done.words("registry") == "its repositories are asked for below hub/"
    assert done.marks()["image"] == "ok"
    hub.path = "/some/path"
    done = await desk.check(docker_io=at(f"{hub.url}/some/path"))
    assert "answers /some/path/v2/ with 401" in done.words("registry")


async def test_a_path_that_may_be_either_is_said_to_be(desk: Desk, hub: Hub) -> None:
    hub.add_image("hub/library/redis", "7", b"layer")

    async def wall(request: web.Request) -> web.StreamResponse | None:
        answer = hub.ping(request)
        return answer if answer.status == 401 else None

    hub.elsewhere = wall
    done = await desk.check("redis:7", docker_io=at(f"{hub.url}/hub"))
    assert done.done.status == 0
    assert "both /v2/hub and /hub/v2 are tried" in done.words("registry")
    assert done.marks()["registry"] == "note"
    assert done.marks()["image"] == "ok"


async def test_a_path_at_which_no_registry_is_fails(desk: Desk, hub: Hub) -> None:
    hub.path, hub.elsewhere = "/elsewhere", page()
    done = await desk.check(docker_io=at(f"{hub.url}/some/path"))
    assert done.done.status == 1
    assert done.marks()["registry"] == "FAIL"
    assert f"Write url: with /v2/ where it stands, as in {hub.url}/v2/some/path" in done.words(
        "registry"
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (page(), ("web page", "correct the url")),
        (status(404), ("404", "no registry is there")),
        (status(503), ("503", "has trouble")),
        (status(403), ("403", "no registry's answer")),
    ],
    ids=["a web page", "404", "503", "403"],
)
async def test_what_is_no_registry_is_said_to_be_none(
    desk: Desk, hub: Hub, fault: object, words: tuple[str, ...]
) -> None:
    hub.fail("registry", fault, times=100)
    checked = await desk.check(docker_io=at(hub.url))
    assert checked.marks() == {"connection": "ok", "registry": "FAIL"}
    for word in words:
        assert word in checked.words("registry")
    assert checked.done.status == 1


async def test_a_clock_that_differs_from_the_registry_s_is_told(desk: Desk, hub: Hub) -> None:
    async def long_ago(_: web.Request) -> web.StreamResponse:
        headers = {
            "Date": "Sat, 01 Jan 2000 00:00:00 GMT",
            "Docker-Distribution-Api-Version": "registry/2.0",
        }
        return web.json_response({}, headers=headers)

    assert "clock" not in (await desk.check(docker_io=at(hub.url))).steps
    hub.fail("registry", long_ago, times=100)
    checked = await desk.check(docker_io=at(hub.url))
    assert checked.marks()["clock"] == "note"
    assert "s ahead of the endpoint's" in checked.words("clock")
    assert checked.done.status == 0


async def test_nobody_there_and_no_such_name_are_told_apart(desk: Desk) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    refused = await desk.check(docker_io=at(f"http://{nobody}"))
    assert refused.marks() == {"connection": "FAIL"}
    assert nobody in refused.words("connection")
    unknown = await desk.check(docker_io=at("http://registry.invalid"))
    assert unknown.marks() == {"name": "FAIL"}
    assert "registry.invalid" in unknown.words("name")


async def test_what_speaks_no_http_is_said_to(desk: Desk) -> None:
    async with bare(babbles) as url:
        checked = await desk.check(docker_io=at(url))
    assert checked.marks() == {"registry": "FAIL"}
    assert "HTTP" in checked.words("registry")


async def test_the_connection_is_told_once_with_the_proxy_by_which_it_is(
    desk: Desk, hub: Hub
) -> None:
    async with FakeProxy("registry.example") as proxy:
        port = hub.url.rpartition(":")[2]
        url = f"http://registry.example:{port}"
        checked = await desk.check(docker_io=at(url, proxy=proxy.url))
    told = [line for line in checked.done.stdout.splitlines() if " connection " in line]
    assert len(told) == 1
    assert f"registry.example:{port} by the proxy {proxy.url}" in told[0]


async def _registry(request: web.Request) -> web.Response:
    return web.json_response({})


async def test_a_certificate_is_shown_or_said_to_be_refused(desk: Desk) -> None:
    made = certificate(desk.folder)
    async with https(made, _registry) as url:
        refused = await desk.check(docker_io=at(url))
        accepted = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "mirror", "check", "--online", "--config", desk.config],
            env={**os.environ, **made.environment()},
            capture_output=True,
            text=True,
        )
    assert refused.marks() == {"name": "ok", "connection": "ok", "TLS": "FAIL"}
    assert "ca_file" in refused.words("TLS")
    assert "the certificate is for 'localhost', '127.0.0.1', by" in refused.words("TLS")
    assert accepted.returncode == 0
    checked = Checked(Done(0, accepted.stdout, accepted.stderr))
    assert checked.marks()["TLS"] == "note"  # it ends tomorrow
    assert "'localhost'" in checked.words("TLS")
    assert "a test's server" in checked.words("TLS")
    assert "valid until" in checked.words("TLS")


@pytest.mark.parametrize("name", ["localhost", "other.example"])
async def test_a_certificate_that_has_ended_or_is_anothers_is_shown_too(
    desk: Desk, name: str
) -> None:
    made = certificate(desk.folder, name, ended=name == "localhost")
    async with https(made, _registry) as url:
        refused = await desk.check(docker_io=at(url, ca_file=str(made.trusted)))
    assert refused.marks() == {"name": "ok", "connection": "ok", "TLS": "FAIL"}
    assert f"the certificate is for '{name}'" in refused.words("TLS")


async def test_a_mirror_that_is_offline_asks_nobody(desk: Desk, hub: Hub) -> None:
    checked = await desk.check(keys={"offline": True}, docker_io=at(hub.url))
    assert checked.done.status == 0
    assert "offline: true" in checked.done.stdout
    assert hub.requests == []


async def test_what_is_not_mirrored_or_not_asked_for_is_a_mistake(desk: Desk, hub: Hub) -> None:
    other = await desk.check("ghcr.io/acme/app", docker_io=at(hub.url))
    assert other.done.status == 2
    assert "ghcr.io is not mirrored" in other.done.stderr
    without = await ran("check", "--config", desk.config, "redis:7")
    assert without.status == 2
    assert "--online" in without.stderr
    assert hub.requests == []
