"""The section `hosted`: what is taken, what is refused, and what a mirror that runs makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror import config
from mirror.config import Config, ConfigError, following


def parse(text: str) -> Config:
    return config.parse(text, "mirror.yaml")


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return [str(problem) for problem in raised.value.problems]


def test_nothing_is_hosted_unless_it_is_written() -> None:
    assert parse("").hosted is None
    assert parse("hosted:\n#  listen: ':5002'\n").hosted is None


def test_a_port_and_names_of_its_own() -> None:
    hosted = parse(
        "hosted: {listen: [':5002', {address: 'localhost:5003', tls: false}],"
        " hosts: [Registry.Corp.LAN], url: 'HTTPS://Registry.corp.lan/'}"
    ).hosted
    assert hosted is not None
    assert [(str(each), each.tls) for each in hosted.listen] == [
        (":5002", True),
        ("localhost:5003", False),
    ]
    assert hosted.hosts == ("registry.corp.lan",)
    assert hosted.url == "https://registry.corp.lan"
    assert hosted.records is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://registry@db:5432/registry",
        "postgres://db/registry",
        "postgresql:///registry?host=/run/postgresql",
        "postgresql://me:s%40t@[::1]/registry",
    ],
)
def test_records_in_postgresql(url: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    hosted = parse(
        f"hosted: {{hosts: [a.lan], records: '{url}', records_password_file: {tmp_path}/secret}}"
    ).hosted
    assert hosted is not None
    assert hosted.records is not None
    assert hosted.records.get_secret_value() == url
    assert hosted.records_password is not None
    assert hosted.records_password.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("hosted: {url: 'http://a'}", "hosted", "write listen: 127.0.0.1:5002, or hosts: ["),
        ("hosted: {hosts: []}", "hosted", "neither listen nor hosts"),
        ("hosted: {hosts: ['a.lan:5000']}", "hosted.hosts[0]", "write a.lan"),
        ("hosted: {hosts: ['*.lan']}", "hosted.hosts[0]", "such as ghcr.mirror.lan"),
        (
            "registries: {docker.io: , ghcr.io: {hosts: [a.lan]}}\nhosted: {hosts: [b.lan, A.lan]}",
            "hosted.hosts[1]",
            "'a.lan', which is ghcr.io's too",
        ),
        ("hosted: {listen: '127.0.0.1:5000'}", "hosted.listen", "and 127.0.0.1:5000 before it"),
        ("hosted: {listen: [':5002', ':5002']}", "hosted.listen[1]", "each port once"),
        ("hosted: {listen: ':5001'}", "hosted.listen", "port 5001, which is admin's too"),
        ("admin: ':6001'\nhosted: {listen: ':6001'}", "hosted.listen", "which is admin's too"),
        ("hosted: {listen: [nowhere]}", "hosted.listen", "'nowhere'"),
        ("hosted: {listen: {address: ':5002', tsl: x}}", "hosted.listen.tsl", "write tls"),
        ("hosted: {listen: [{address: ':5002', tls: true}]}", "hosted.listen[0].tls", "without a"),
        ("hosted: {listn: ':5002'}", "hosted.listn", "write listen"),
        ("hosted: {listen: ':5002', url: 'http://a/b'}", "hosted.url", "without a path"),
        (
            "hosted: {listen: ':5002', records: 'mysql://a/b'}",
            "hosted.records",
            "write embedded, or postgresql://",
        ),
        (
            "hosted: {listen: ':5002', records: 'postgresql://a'}",
            "hosted.records",
            "cannot be read",
        ),
        (
            "hosted: {listen: ':5002', records_password_env: PATH}",
            "hosted.records_password_env",
            "a password for embedded records",
        ),
        ("hosted: ':5002'", "hosted", "its keys below it"),
    ],
)
def test_mistakes_say_what_to_write(text: str, where: str, words: str) -> None:
    problems = problems_of(text)
    assert len(problems) == 1, problems
    assert f": {where}: " in problems[0], problems
    assert words in problems[0], problems


@pytest.mark.parametrize(
    "url",
    ["mysql://me:hunter2@a/b", "postgresql://me:hunter2@a:x/b", "postgresql://a@b:hunter2@c/d"],
)
def test_no_message_shows_the_password_of_the_records(url: str) -> None:
    [problem] = problems_of(f"hosted: {{listen: ':5002', records: '{url}'}}")
    assert "hunter2" not in problem


def test_it_needs_a_restart() -> None:
    running, written = Config(), parse("hosted: {listen: ':5002'}")
    counts, kept = following(running, written)
    assert counts.hosted is None
    assert kept == ["hosted"]


def test_where_webhooks_may_go() -> None:
    hosted = parse(
        'hosted: {hosts: [a.lan], webhooks: {allow_private: [10.1.2.0/24, ci.lan, "*.corp.lan"]}}'
    ).hosted
    assert hosted is not None
    assert list(map(str, hosted.webhooks.allow_private)) == ["10.1.2.0/24", "ci.lan", "*.corp.lan"]
    assert problems_of("hosted: {hosts: [a.lan], webhooks: {allow_private: ['http://ci.lan']}}")


def test_a_registry_of_one_s_own_needs_no_endpoint() -> None:
    found = parse(
        "registries: {corp.lan: {hosted: true}, ghcr.io: }\nhosted: {listen: ':5002'}\n"
        "default_registry: ghcr.io\n"
    ).registries
    assert (found["corp.lan"].hosted, found["corp.lan"].endpoints) == (True, ())
    assert (found["ghcr.io"].hosted, len(found["ghcr.io"].endpoints)) == (False, 1)


def test_one_registry_at_most_is_one_s_own_and_only_where_something_is_hosted() -> None:
    default = "default_registry: a.lan\n"
    (told,) = problems_of(default + "registries: {a.lan: {hosted: true}}\n")
    assert "registries.a.lan.hosted" in told
    assert "no section hosted" in told
    (told,) = problems_of(
        default + "hosted: {listen: ':5002'}\n"
        "registries: {a.lan: {hosted: true}, b.lan: {hosted: true}}\n"
    )
    assert "registries.b.lan.hosted" in told
