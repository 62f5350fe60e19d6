"""The section `fleet`: what is taken, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror import config
from mirror.app.forewarned import forewarned
from mirror.config import Config, ConfigError, DnsName, FleetConfig, following

REDIS = "tags: {store: 'redis://127.0.0.1:6379/0'}\n"
SECRET = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_SECRET", SECRET)
    monkeypatch.setenv("SHORT", "hunter2")
    monkeypatch.setenv("POD_URL", "http://10.1.2.4:5003")


def parse(text: str) -> Config:
    return config.parse(text, "mirror.yaml")


def parsed(keys: str) -> FleetConfig:
    found = parse(f"{REDIS}fleet: {{listen: ':5003', secret_env: FLEET_SECRET, {keys}}}").fleet
    assert found is not None
    return found


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return [str(problem).partition(": ")[2] for problem in raised.value.problems]


def test_no_fleet_unless_it_is_written() -> None:
    assert parse("").fleet is None
    assert parse("fleet:\n#  listen: ':5003'\n").fleet is None


def test_a_node_by_its_url_and_the_secret_of_all(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    found = parse(
        f"{REDIS}fleet: {{listen: ':5003', url: 'HTTP://Node-1.Corp.lan:5003/',"
        f" secret_file: {tmp_path}/secret}}"
    ).fleet
    assert found is not None
    assert (str(found.listen), found.own_url, found.nodes) == (
        ":5003",
        "http://node-1.corp.lan:5003",
        "redis",
    )
    assert found.secret == SECRET.encode()
    assert found.client_pem is None


def test_a_url_that_only_the_environment_knows() -> None:
    assert parsed("url_env: POD_URL").own_url == "http://10.1.2.4:5003"


def test_nodes_by_a_list_and_by_dns() -> None:
    listed = parsed(
        "url: 'http://[2001:DB8:0::1]:5003',"
        " nodes: ['http://[2001:db8::1]:5003', 'http://b.lan:5003']"
    )
    assert listed.nodes == ("http://[2001:db8::1]:5003", "http://b.lan:5003")
    by_name = parsed("url: 'http://10.1.2.3:5003', nodes: 'dns://Peers.svc:5003'")
    assert by_name.nodes == DnsName("peers.svc", 5003)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            "url: 'http://a:5003', secret: hunter2",
            "fleet.secret: found a key that is not known, write secret_file, with the path of a",
        ),
        ("url: 'http://10.0.0.1'", "fleet.url: found 'http://10.0.0.1', write the port too"),
        ("url: 'http://0.0.0.0:5003'", "fleet.url: found 'http://0.0.0.0:5003', write an address"),
        ("url: '10.0.0.1:5003'", "fleet.url: found '10.0.0.1:5003', write a URL such as"),
        (
            "url_env: FLEET_SECRET",
            "fleet.url_env: found the variable FLEET_SECRET, which has no such URL, write the name",
        ),
        ("nodes: redis", "fleet: found no url, write url or url_env: as other nodes reach it"),
        (
            "url: 'http://a:5003', url_env: POD_URL",
            "fleet.url_env: found url_env besides url, write one of them",
        ),
        (
            "url: 'http://a:5003', nodes: ['http://b:5003']",
            "fleet.nodes: found a list without this node, write http://a:5003 in it, too",
        ),
        (
            "url: 'http://a:5003', nodes: 'dns://peers:5003'",
            "fleet.url: found 'http://a:5003', a name, and nodes by DNS, write the address that",
        ),
        ("url: 'http://a:5003', nodes: gossip", "fleet.nodes: found 'gossip', write redis, a list"),
        ("url: 'http://a:5003', nodes: 'dns://peers'", "fleet.nodes: found 'dns://peers', write"),
        ("url: 'http://a:5003', nodes: []", "fleet.nodes: found an empty list, write"),
        (
            "url: 'https://a:5003'",
            "fleet.url: found https:// without a certificate, write the section tls below fleet",
        ),
    ],
)
def test_what_cannot_be_meant(keys: str, words: str) -> None:
    [found] = problems_of(f"{REDIS}fleet: {{listen: ':5003', secret_env: FLEET_SECRET, {keys}}}")
    assert found.startswith(words)


def test_a_fleet_needs_redis_and_a_long_secret() -> None:
    [no_redis] = problems_of(
        "fleet: {listen: ':5003', url: 'http://a:5003', secret_env: FLEET_SECRET}"
    )
    assert no_redis.startswith("fleet: found a fleet without Redis, write tags: {store: redis://")
    [short] = problems_of(
        f"{REDIS}fleet: {{listen: ':5003', url: 'http://a:5003', secret_env: SHORT}}"
    )
    assert "fewer than 32 signs" in short
    assert "hunter2" not in short
    [none] = problems_of(f"{REDIS}fleet: {{listen: ':5003', url: 'http://a:5003'}}")
    assert none.startswith("fleet: found no secret_file, write secret_file or secret_env")


@pytest.mark.parametrize("others", ["listen: ':5003'", "admin: '127.0.0.1:5003'"])
def test_the_peer_port_is_nobody_elses(others: str) -> None:
    [found] = problems_of(
        f"{REDIS}{others}\n"
        "fleet: {listen: ':5003', url: 'http://a:5003', secret_env: FLEET_SECRET}"
    )
    assert found.startswith("fleet.listen: found ")


def test_a_changed_fleet_waits_for_a_restart() -> None:
    fleet = "fleet: {listen: ':5003', url: 'http://a:5003', secret_env: FLEET_SECRET}"
    running = parse(REDIS + fleet)
    assert following(running, parse(REDIS))[1] == ["fleet"]
    assert following(running, parse(REDIS + fleet))[1] == []


def test_what_other_hosts_do_not_reach_is_said(tmp_path: Path) -> None:
    def warnings(listen: str, url: str) -> list[str]:
        text = f"{REDIS}fleet: {{listen: '{listen}', url: '{url}', secret_env: FLEET_SECRET}}"
        found = parse(f"{text}\nstorage: {{path: {tmp_path}}}")
        return [one for one in forewarned(found) if one.startswith("fleet.")]

    assert warnings(":5003", "http://10.1.2.3:5003") == []
    [own_host] = warnings(":5003", "http://127.0.0.1:5003")
    assert own_host.startswith("fleet.url: ")
    [loopback] = warnings("127.0.0.1:5003", "http://10.1.2.3:5003")
    assert loopback.startswith("fleet.listen: ")
    [mapped] = warnings(":5003", "http://10.1.2.3:6003")
    assert "the peer port is 5003" in mapped
