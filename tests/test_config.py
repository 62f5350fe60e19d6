"""mirror.yaml: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror import config
from mirror.config import (
    Address,
    Config,
    ConfigError,
    EndpointConfig,
    FreshnessConfig,
    document,
    model,
)
from mirror.config.section import Section
from mirror.oci.digest import Digest

from .e2e import certificates

SHIPPED = Path(__file__).parent.parent / "mirror.yaml"
HUB = "https://registry-1.docker.io"
SECRET = "hunter2-s3cr3t"
ADMIN_TOKEN = "0123456789abcdef0123456789abcdef"
FLEET_SECRET = "0123456789abcdef" * 2


def parse(text: str) -> Config:
    return config.parse(text, "mirror.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.problems]
    return str(caught.value).splitlines()


def sections(of: type[Section], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each section, those of any registry and of lists included."""
    for field in of.fields().values():
        for each in sections_in(field.annotation):
            yield (*path, field.called)
            yield from sections(each, (*path, field.called))


def sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


@pytest.mark.parametrize(
    ("groups", "files", "cores", "workers"),
    [
        ("", {}, 3, 3),
        ("", {}, 64, 8),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "250000 100000"}, 16, 2),
        ("0::/a", {"a/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 16, 4),
        ("0::/of/the/host", {"cpu.max": "50000 100000"}, 16, 1),
        (
            "1:name=systemd:/a\n4:cpu,cpuacct:/b",
            {"cpu/b/cpu.cfs_quota_us": "500000", "cpu/b/cpu.cfs_period_us": "100000"},
            16,
            5,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 6, 6),
        ("0::/../x", {}, 2, 2),
    ],
)
def test_workers_auto_is_a_worker_a_core_that_may_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    cores: int,
    workers: int,
) -> None:
    written = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **written}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    usable = config.cores.usable
    monkeypatch.setattr("mirror.config.cores.usable", lambda: usable(tmp_path))
    assert parse("workers: auto").workers == workers


@pytest.mark.parametrize("path", list(sections(Config)), ids=".".join)
def test_a_key_that_no_section_knows_is_told_with_those_that_it_does(path: tuple[str, ...]) -> None:
    text, lists = "{zzzzz: 1}", ("listen", "access", "sync", "endpoints", "freshness")
    for key in reversed(path):
        inner = f"[{text}]" if key in lists else text
        text = (
            f"{{{key}: {{docker.io: {inner}}}}}" if key == "registries" else f"{{{key}: {inner}}}"
        )
    told = [each for each in problems(text) if "zzzzz: found a key that is not known" in each]
    assert len(told) == 1, problems(text)
    assert re.search(r"write (one of \w+|\w+)", told[0])


def only_problem(text: str) -> str:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def docker_hub(lines: str) -> str:
    """The keys of docker.io, at line 3 and after."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"registries:\n  docker.io:\n{indented}"


@pytest.fixture
def secret_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


# What is taken


@pytest.mark.parametrize(
    ("text", "address", "write"),
    [
        ("admin: ':9'", ":9", False),
        ("admin: {listen: ':9'}", ":9", False),
        ("admin: {write: true}", "127.0.0.1:5001", True),
        ("admin: {listen: '[::1]:9', write: true}", "[::1]:9", True),
        ("admin: {listen: 'localhost:9', write: true}", "localhost:9", True),
    ],
)
def test_the_admin_port_is_an_address_or_a_section(text, address, write):
    admin = parse(text).admin
    assert (str(admin.listen), admin.write, admin.token_file) == (address, write, None)


def test_the_admin_port_is_written_to_from_elsewhere_with_a_token(tmp_path):
    secret_file = tmp_path / "token"
    secret_file.write_text(ADMIN_TOKEN + "\n")
    admin = parse(f"admin: {{listen: ':9', write: true, token_file: '{secret_file}'}}").admin
    assert admin.write
    assert admin.token_file.get_secret_value() == ADMIN_TOKEN


def test_a_token_that_could_be_guessed_is_none(tmp_path):
    (tmp_path / "token").write_text("hunter2\n")
    [problem] = problems(f"admin: {{token_file: '{tmp_path / 'token'}'}}")
    assert "fewer than 16 signs" in str(problem)
    assert "hunter2" not in str(problem)


def addresses(given):
    return [each.address for each in given.listen]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~", "registries:\n", "storage:\n"])
def test_nothing_said_is_docker_hub(text):
    assert parse(text) == config.load(None) == Config()


def test_the_defaults():
    default = config.load(None)
    assert addresses(default) == [Address("127.0.0.1", 5000)]
    assert default.admin.listen == Address("127.0.0.1", 5001)
    assert not default.admin.write
    assert default.workers == 1
    assert default.storage.max_size == 50 * 1024**3
    assert default.storage.durability == "full"
    assert default.tags.store is None
    assert default.default_registry == "docker.io"
    assert list(default.registries) == ["docker.io"]
    hub = default.registries["docker.io"]
    assert hub.endpoints == (EndpointConfig(url=HUB, trust="tags"),)
    assert hub.freshness == (FreshnessConfig(ttl="5m", stale="24h", negative_ttl="30s"),)
    (freshness,) = hub.freshness
    assert (freshness.ttl, freshness.stale, freshness.negative_ttl) == (300, 86400, 30)
    assert (freshness.stale_while_revalidate, freshness.on_404, freshness.immutable) == (
        *(0, "believe", False),
    )
    assert default.pin == {}
    assert hub.quota.low == 0.2
    assert (hub.credentials, hub.realm, hub.allow_private) == ((), None, ())


def test_the_shipped_file_is_the_default_but_for_its_path():
    shipped = config.load(SHIPPED)
    assert shipped.storage.path == Path("data")
    same_path = {"storage": Config().storage.but({"path": Path("data")})}
    assert shipped == Config().but(same_path)


def with_certificates(folder: Path) -> None:
    """The files that examples of ca_file and client name."""
    issued = certificates.issue(folder, ("mirror",))
    for name in ("mirror.pem", "mirror-key.pem", "node.pem", "node-key.pem"):
        (folder / name).write_bytes(issued.server.read_bytes())
    for name in ("corp-ca.pem", "clients-ca.pem", "fleet-ca.pem"):
        (folder / name).write_bytes(issued.authority.read_bytes())


def shipped_examples() -> list[str]:
    """The blocks that are commented out by a bare '#', not by '# '."""
    return re.findall(r"(?m)(?:^#(?:  |\w).*\n)+", SHIPPED.read_text())


def uncommented(text: str, block: str) -> str:
    """The file with this example in use, in the place of the keys that it stands for."""
    indentation = len(block) - len(block[1:].lstrip()) - 1
    keys = re.findall(rf"(?m)^#( {{{indentation}}}\w[\w.]*:)", block)
    used = text.replace(block, re.sub(r"(?m)^#", "", block))
    for key in keys:
        in_use = re.search(rf"(?m)^{key}.*\n", text)
        used = used.replace(in_use[0], "") if in_use else used
    return used


@pytest.mark.parametrize("block", shipped_examples(), ids=lambda block: block.split()[1])
def test_each_example_of_the_shipped_file_is_taken(block, tmp_path):
    secrets = ("hub", "ghcr", "corp", "proxy", "redis", "redis-ca.pem", "sentinels", "records")
    for name in (*secrets, "fleet", "s3"):
        (tmp_path / name).write_text(SECRET if name != "fleet" else FLEET_SECRET)
    (tmp_path / "admin").write_text(ADMIN_TOKEN)
    with_certificates(tmp_path)
    shipped = SHIPPED.read_text()
    if "#fleet:" in block:
        shipped = shipped.replace("store: embedded", "store: redis://redis.example.com:6379/0")
    used = uncommented(shipped, block).replace("/run/secrets", str(tmp_path))
    assert parse(used) != parse(shipped)


PAGES = (
    "README.md",
    "docs/configuration.md",
    "docs/clients.md",
    "docs/hosting.md",
    "docs/upstreams.md",
)


def examples_of(page: str) -> list[str]:
    """The examples of mirror.yaml: indented blocks that begin with one of its keys."""
    keys = "|".join(Config.fields())
    return re.findall(
        rf"(?m)^    (?:{keys}):(?:\n| .*\n)(?:^    .*\n)*", (SHIPPED.parent / page).read_text()
    )


@pytest.mark.parametrize(
    ("page", "block"), [(page, e) for page in PAGES for e in examples_of(page)]
)
def test_each_example_of_the_pages_is_taken(page, block, tmp_path):
    for name in re.findall(r"/run/secrets/([\w.-]+)", block):
        (tmp_path / name).write_text(FLEET_SECRET if name == "fleet" else SECRET)
    with_certificates(tmp_path)
    text = re.sub(r"(?m)^    ", "", block).replace("/run/secrets", str(tmp_path))
    assert parse(text) != Config()


def test_the_pages_have_their_examples():
    assert [len(examples_of(page)) for page in PAGES[:4]] == [2, 12, 1, 3]
    upstreams = (SHIPPED.parent / "docs/upstreams.md").read_text()
    registries = upstreams.partition("\n## What to write\n")[2].split("\n## ")[1:-1]
    for section in registries:
        assert "\n    registries:\n" in section, section.partition("\n")[0]
    assert len(examples_of("docs/upstreams.md")) >= len(registries)


def test_the_shipped_file_has_its_examples():
    examples = "".join(shipped_examples())
    for word in (
        "rediss://",
        "trust: content",
        "ghcr.io",
        "quay.io",
        "prefix: ",
        "registry.corp.local:5000",
        "pin:",
        "access:",
        "sync:",
        "hosted:",
        "fleet:",
    ):
        assert word in examples
    assert len(shipped_examples()) == 21


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000),
        (":5000", "", 5000),
        ("5000", "127.0.0.1", 5000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("'[::]:5000'", "::", 5000),
        ("'[::1]:5000'", "::1", 5000),
        ("localhost:65535", "localhost", 65535),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_addresses(text, host, port):
    assert addresses(parse(f"listen: {text}")) == [Address(host, port)]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1MiB", 2**20),
        ("50GiB", 50 * 2**30),
        ("50 GiB", 50 * 2**30),
        ("1.5TiB", 3 * 2**39),
        ("2048KiB", 2**21),
        ("2000kB", 2 * 10**6),
        ("20MB", 2 * 10**7),
        ("50GB", 5 * 10**10),
        ("2TB", 2 * 10**12),
        ("1048576", 2**20),
        ("010485760", 10485760),  # not YAML 1.1's octal
    ],
)
def test_sizes(text, size):
    assert parse(f"storage: {{max_size: {text}}}").storage.max_size == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1ms", 0.001),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("24 h", 86400.0),
        ("7d", 604800.0),
        ("0s", 0.0),
    ],
)
def test_times(text, seconds):
    registry = parse(docker_hub(f"freshness: {{ttl: {text}}}")).registries["docker.io"]
    (freshness,) = registry.freshness
    assert freshness.ttl == seconds
    assert isinstance(freshness.ttl, float)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://mirror.example.com", "https://mirror.example.com"),
        ("https://Mirror.example.com/", "https://mirror.example.com"),
        ("http://10.0.0.7:5000", "http://10.0.0.7:5000"),
        ("http://my_registry:5000/", "http://my_registry:5000"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]:443"),
        ("https://harbor.corp/v2/", "https://harbor.corp"),
        ("https://harbor.corp/v2/dockerhub-proxy/", "https://harbor.corp/v2/dockerhub-proxy"),
        ("https://Harbor.corp:8443/dockerhub-proxy/", "https://harbor.corp:8443/dockerhub-proxy"),
        ("http://h/artifactory/api/docker/x/v2/", "http://h/artifactory/api/docker/x/v2"),
        ("https://h/artifactory/api/docker/~x", "https://h/artifactory/api/docker/~x/v2"),
        ("https://h/artifactory/api/docker/Hub_X", "https://h/artifactory/api/docker/Hub_X"),
    ],
)
def test_endpoints(text, url):
    registry = parse(docker_hub(f"endpoints:\n- url: '{text}'")).registries["docker.io"]
    assert registry.endpoints == (EndpointConfig(url=url, trust="tags"),)
    assert registry.endpoints[0].address == url


@pytest.mark.parametrize(
    ("url", "prefix", "address"),
    [
        ("https://harbor.corp", "dockerhub-proxy", "https://harbor.corp/v2/dockerhub-proxy"),
        ("https://harbor.corp/", "/group/hub/", "https://harbor.corp/v2/group/hub"),
        ("https://harbor.corp/v2/hub", "hub", "https://harbor.corp/v2/hub"),
        ("https://harbor.corp/v2", "hub", "https://harbor.corp/v2/hub"),
        ("https://corp/harbor", "hub", "https://corp/harbor/v2/hub"),
        ("https://corp/harbor/v2/", "hub", "https://corp/harbor/v2/hub"),
        ("https://corp/artifactory/api/docker/x", "", "https://corp/artifactory/api/docker/x/v2"),
        ("https://harbor.corp", "", "https://harbor.corp"),
        ("https://[2001:db8::1]:8443", "hub", "https://[2001:db8::1]:8443/v2/hub"),
    ],
)
def test_with_a_prefix_the_path_stands_before_v2(url, prefix, address):
    text = docker_hub(f"endpoints:\n- url: {url}\n  prefix: '{prefix}'")
    [endpoint] = parse(text).registries["docker.io"].endpoints
    assert endpoint.address == address


def test_endpoints_of_one_host_may_have_different_prefixes():
    text = "endpoints:\n- url: https://h/v2/a\n- {url: https://h, prefix: b}\n- url: https://h"
    endpoints = parse(docker_hub(text)).registries["docker.io"].endpoints
    assert [one.address for one in endpoints] == ["https://h/v2/a", "https://h/v2/b", "https://h"]


@pytest.mark.parametrize("said", ["", " {}", "\n    credentials:", "\n    endpoints:"])
def test_a_registry_is_asked_at_its_own_name_when_no_endpoint_is_given(said):
    registries = parse(f"registries:\n  docker.io:\n  localhost:5000:{said}\n").registries
    assert [each.url for each in registries["docker.io"].endpoints] == [HUB]
    assert [each.url for each in registries["localhost:5000"].endpoints] == [
        "https://localhost:5000"
    ]


def test_another_default_registry():
    assert parse("default_registry: ghcr.io\nregistries: {ghcr.io: }").default_registry == "ghcr.io"


def test_a_registry_may_be_spelled_in_any_way():
    config = parse(
        "default_registry: Docker.io\n"
        "pin: {index.docker.io/redis:7: 2026-11-01, ghcr.io:443/a/b:1: 2026-11-01}\n"
        "registries:\n  index.docker.io: {hosts: [M.lan.]}\n  GHCR.io:443:\n"
    )
    assert config.default_registry == "docker.io"
    assert list(config.registries) == ["docker.io", "ghcr.io"]
    assert [each.url for each in config.registries["docker.io"].endpoints] == [HUB]
    assert [each.url for each in config.registries["ghcr.io"].endpoints] == ["https://ghcr.io"]
    assert config.registries["docker.io"].hosts == ("m.lan",)


def test_realm_and_private_places():
    keys = (
        "realm: https://Auth.example.com:8443/token\n"
        "allow_private: [10.1.2.0/24, 192.168.1.7, 'fd00::/8', CDN.corp.local]"
    )
    registry = parse(docker_hub(keys)).registries["docker.io"]
    assert registry.realm == "https://auth.example.com:8443/token"
    assert registry.allow_private == (
        ip_network("10.1.2.0/24"),
        ip_network("192.168.1.7/32"),
        ip_network("fd00::/8"),
        "cdn.corp.local",
    )


def test_the_systems_folder_is_taken_when_it_is_there_and_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_STATE_FOLDER", tmp_path)
    assert parse("storage: {max_size: 1GiB}").storage.path == tmp_path
    assert config.load(None).storage.path == tmp_path
    assert parse("storage: {path: other}").storage.path == Path("other")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert parse("").storage.path == Path("data")


def test_the_systems_folder_is_not_taken_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_STATE_FOLDER", tmp_path / "missing")
    assert parse("").storage.path == Path("data")


def test_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse("storage: {path: ~/cache}").storage.path == Path("/home/somebody/cache")


def test_a_byte_order_mark_and_windows_lines_are_no_mistake(tmp_path):
    file = tmp_path / "mirror.yaml"
    file.write_bytes("\ufeffworkers: 3\r\nlisten: :80\r\n".encode())
    assert (config.load(file).workers, addresses(config.load(file))) == (3, [Address("", 80)])


def test_a_configuration_cannot_be_altered():
    with pytest.raises(AttributeError, match="frozen"):
        parse("").workers = 2  # type: ignore[misc]


def test_freshness_may_be_a_list_in_its_order():
    keys = (
        "freshness:\n"
        "- {match: 'library/*:latest', ttl: 1m, stale_while_revalidate: 10m}\n"
        "- {match: ['*:v[0-9]*', 'bob/*'], immutable: true}\n"
        "- {on_404: keep}"
    )
    rules = parse(docker_hub(keys)).registries["docker.io"].freshness
    assert [rule.match for rule in rules] == [
        ("library/*:latest",),
        ("*:v[0-9]*", "bob/*"),
        ("*",),
    ]
    assert [rule.immutable for rule in rules] == [False, True, False]
    assert [rule.on_404 for rule in rules] == ["believe", "believe", "keep"]
    assert (rules[0].ttl, rules[0].stale_while_revalidate, rules[0].stale) == (60, 600, 86400)


@pytest.mark.parametrize(
    ("text", "share"), [("20%", 0.2), ("0%", 0), ("100 %", 1), ("2.5%", 0.025)]
)
def test_shares(text, share):
    assert parse(docker_hub(f"quota: {{low: {text}}}")).registries["docker.io"].quota.low == share


def test_frozen_tags():
    digest = "sha256:" + "0f" * 32
    pin = parse(
        "registries: {docker.io: , ghcr.io: }\n"
        "pin:\n"
        f"  redis:7: {digest}\n"
        "  bob/app: 2026-11-01\n"
        "  ghcr.io/acme/app:v1: 2026-11-01T12:30+02:00\n"
    ).pin
    assert pin == {
        "redis:7": Digest.parse(digest),
        "bob/app": datetime(2026, 11, 1, tzinfo=UTC),
        "ghcr.io/acme/app:v1": datetime(2026, 11, 1, 10, 30, tzinfo=UTC),
    }


# Secrets


# As Google hands it out, for the user _json_key.
KEY_FILE = '{\n  "type": "service_account",\n\t"private_key": "-----BEGIN\\nPRIVATE"\r\n}'


@pytest.mark.parametrize("password", [f" {SECRET} ", KEY_FILE, f"{KEY_FILE}\n", "a\x01b\x7f"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_from_a_file_loses_one_line_ending(tmp_path, password, ending):
    """As `docker login --password-stdin < file` takes it."""
    file = tmp_path / "secret"
    file.write_bytes(f"{password}{ending}".encode())
    keys = f"credentials: {{username: me, password_file: '{file}'}}"
    (credentials,) = parse(docker_hub(keys)).registries["docker.io"].credentials
    if password.endswith("\n") and not ending:
        password = password[:-1]
    assert (credentials.username, credentials.secret.get_secret_value()) == ("me", password)


def test_a_password_from_the_environment_may_have_several_lines(monkeypatch):
    monkeypatch.setenv("LOGIN", KEY_FILE)
    keys = "credentials: {username: _json_key, password_env: LOGIN}"
    (credentials,) = parse(docker_hub(keys)).registries["docker.io"].credentials
    assert credentials.secret.get_secret_value() == KEY_FILE


@pytest.mark.parametrize(
    ("keys", "username"),
    [
        ("username: me, password_env: LOGIN", "me"),
        ("username: me, token_env: LOGIN", "me"),
        ("token_env: LOGIN", None),
        ("token_file: FILE", None),
        ("identity_token_file: FILE", None),
        ("identity_token_env: LOGIN", None),
        ("username: me, identity_token_file: FILE", "me"),
    ],
)
def test_where_a_secret_may_come_from(keys, username, secret_file, monkeypatch):
    monkeypatch.setenv("LOGIN", SECRET)
    text = docker_hub(f"credentials: {{{keys}}}").replace("FILE", str(secret_file))
    (credentials,) = parse(text).registries["docker.io"].credentials
    assert credentials.secret.get_secret_value() == SECRET
    assert credentials.username == username


NULL_USER = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("keys", "is_one"),
    [
        ("identity_token_file: FILE", True),
        ("username: me, identity_token_file: FILE", True),
        (f"username: {NULL_USER}, password_file: FILE", True),
        ("username: me, password_file: FILE", False),
        ("token_file: FILE", False),
    ],
)
def test_what_is_an_identity_token(keys, is_one, secret_file):
    text = docker_hub(f"credentials: {{{keys}}}").replace("FILE", str(secret_file))
    (credentials,) = parse(text).registries["docker.io"].credentials
    assert credentials.is_identity_token is is_one


@pytest.mark.parametrize("name", ["ecr-login", "pass", "gcr", "acr-env", "my_helper.v2"])
def test_a_credential_helper_is_named_and_need_not_be_there(name):
    (credentials,) = (
        parse(docker_hub(f"credentials: {{credential_helper: {name}}}"))
        .registries["docker.io"]
        .credentials
    )
    assert (credentials.credential_helper, credentials.username) == (name, None)
    keys = f"credentials: {{username: AWS, credential_helper: {name}}}"
    (credentials,) = parse(docker_hub(keys)).registries["docker.io"].credentials
    assert credentials.username == "AWS"


def test_a_registry_and_its_endpoints_may_have_several_logins(secret_file):
    one = f"{{username: me, password_file: '{secret_file}'}}"
    other = f"{{username: you, password_file: '{secret_file}'}}"
    hub = parse(
        docker_hub(
            f"credentials:\n  - {one}\n  - {other}\n"
            f"endpoints:\n  - url: {HUB}\n    connections: 8\n"
            f"  - url: https://near.example.com\n    credentials: {one}"
        )
    ).registries["docker.io"]
    assert [login.username for login in hub.credentials] == ["me", "you"]
    assert [endpoint.connections for endpoint in hub.endpoints] == [8, 32]
    assert [[login.username for login in each.credentials] for each in hub.endpoints] == [
        [],
        ["me"],
    ]


def test_f71_a_configuration_shows_none_of_its_secrets(secret_file, monkeypatch):
    monkeypatch.setenv("LOGIN", SECRET)
    text = f"tags: {{store: 'redis://u:{SECRET}@redis'}}\n" + docker_hub(
        f"credentials: {{username: me, password_file: '{secret_file}'}}"
    )
    text += "  ghcr.io:\n    credentials: {token_env: LOGIN}\n"
    taken = parse(text)
    for shown in (repr(taken), str(taken), repr(taken.tags.store)):
        assert SECRET not in shown
    assert taken.tags.store is not None
    assert taken.tags.store.get_secret_value() == f"redis://u:{SECRET}@redis"


@pytest.mark.parametrize(
    "text",
    [
        f"tags: {{store: 'redis://:{SECRET}'}}",
        f"tags: {{store: 'redis://:{SECRET}/x@redis:6379/0'}}",
        f"tags: {{store: 'redis://:a@{SECRET}@redis:6379/0'}}",
        f"tags: {{store: 'redis://redis:6379/0?password={SECRET}'}}",
        f"tags: {{store: 'redis:/u:{SECRET}@redis'}}",
        f"tags: {{store: 'redis://u:{SECRET}@redis:99999'}}",
        f"tags: {{password: {SECRET}}}",
        f"tags: {{store: 'redis://redis', password_file: {SECRET}}}",
        f"tags: {{store: 'redis://redis', password_env: {SECRET}}}",
        f"tags: {{store: embedded, password_file: /{SECRET}}}",
        f"tags: {{store: &{SECRET} x}}",
        f"tags: {{store: *{SECRET} }}",
        f"tags: {{store: !{SECRET} x}}",
        f"tags: {{store: !a!{SECRET} x}}",
        f'tags: {{store: "\\u0007{SECRET}"}}',
        f"tags: {{store: {SECRET}: x}}",
        docker_hub(f"credentials: {SECRET}"),
        docker_hub(f"credentials: [{SECRET}]"),
        docker_hub(f"credentials: {{username: me, password: {SECRET}}}"),
        docker_hub(f"credentials: {{username: me, token: {{a: {SECRET}}}}}"),
        docker_hub(f"credentials: {{username: 'me:{SECRET}', token_env: X}}"),
        docker_hub(f"credentials: {{username: me, password_file: 'x/{SECRET}'}}"),
        docker_hub(f"credentials: {{username: me, password_env: {SECRET}}}"),
        docker_hub(f"endpoints:\n- url: https://me:{SECRET}@registry.example.com"),
        docker_hub(f"endpoints:\n- url: https://me:{SECRET}"),
        docker_hub(f"endpoints:\n- url: 'me:{SECRET}'"),
        docker_hub(f"endpoints:\n- url: 'me:p@ss/{SECRET}@https://registry.example.com'"),
        docker_hub(f"endpoints:\n- url: https://registry.example.com/?token={SECRET}"),
        docker_hub(f"endpoints:\n- https://me:{SECRET}@registry.example.com"),
        docker_hub(f"realm: https://me:{SECRET}@auth.example.com/token"),
        docker_hub(f"realm: https://auth.example.com/token#{SECRET}"),
        docker_hub(f"allow_private: ['https://me:{SECRET}@cdn.corp.local']"),
        f"registries:\n  docker.io:\n  https://me:{SECRET}@ghcr.io:\n    realm: x\n",
        f"default_registry: https://me:{SECRET}@ghcr.io",
    ],
)
def test_f71_a_mistake_shows_no_secret(text):
    assert SECRET not in "\n".join(problems(text))


def test_f71_a_secret_that_cannot_be_used_is_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "secret"
    for key, content in (
        ("username: me, password_file", f"{SECRET}\x00"),
        ("token_file", f"{SECRET}\nmore"),
        ("identity_token_file", f"{SECRET}\nmore"),
    ):
        file.write_text(content)
        assert SECRET not in only_problem(docker_hub(f"credentials: {{{key}: '{file}'}}"))
    monkeypatch.setenv("LOGIN", f"{SECRET} {SECRET}")
    assert SECRET not in only_problem(docker_hub("credentials: {token_env: LOGIN}"))
    monkeypatch.setitem(os.environb, b"LOGIN", SECRET.encode() + b"\xff")
    problem = only_problem(docker_hub("credentials: {username: me, password_env: LOGIN}"))
    assert "a secret that is not UTF-8 text" in problem
    assert SECRET not in problem


def test_a_missing_secret_file_is_named_when_it_looks_like_a_path():
    keys = "credentials:\n  username: me\n  password_file: /etc/no-such-secret"
    assert only_problem(docker_hub(keys)) == (
        "mirror.yaml:5: registries.docker.io.credentials.password_file: "
        "found '/etc/no-such-secret': no such file or directory, "
        "write the path of a readable file that holds the secret and nothing else"
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"x" * 65537, "more than 65536 bytes"),
        (b"one\0two\n", "a secret with NUL bytes"),
        ('{"a": 1}\n'.encode("utf-16"), "not UTF-8 text"),
        (None, "is a directory"),
    ],
)
def test_secret_files_of_no_use(tmp_path, content, found):
    file = tmp_path / "secret"
    file.mkdir() if content is None else file.write_bytes(content)
    keys = f"credentials:\n  username: me\n  password_file: {file}"
    problem = only_problem(docker_hub(keys))
    assert problem.startswith("mirror.yaml:5: registries.docker.io.credentials.password_file: ")
    assert found in problem


def test_the_password_of_redis_need_not_stand_in_the_url(secret_file):
    tags = parse(f"tags: {{store: 'rediss://me@redis/1', password_file: '{secret_file}'}}").tags
    assert tags.store is not None
    assert tags.store.get_secret_value() == "rediss://me@redis/1"
    assert tags.password is not None
    assert tags.password.get_secret_value() == SECRET


def test_an_entry_of_sync_is_read(tmp_path):
    (tmp_path / "list.txt").write_text("redis:7\n")
    entry = f"{{images: [redis:7, 'bob/app:v*', '@{tmp_path}/list.txt'], platforms: linux/arm64, "
    entry += "every: 6h, window: '22:00-5:00 Europe/Berlin', newest: 3, spare_quota: 20%, name: a}"
    first, second = parse(f"sync:\n- {entry}\n- images: redis\n").sync
    assert first.images == ("redis:7", "bob/app:v*", f"@{tmp_path}/list.txt")
    assert (first.platforms, first.every, first.newest) == (("linux/arm64",), 21600.0, 3)
    assert (str(first.window), first.spare_quota) == ("22:00-05:00 Europe/Berlin", 0.2)
    assert (second.images, second.every, second.window) == (("redis",), 86400.0, None)
    assert [config.sync_name(each, n) for n, each in enumerate((first, second))] == ["a", "2"]


def test_rules_of_access_are_kept_in_their_order():
    rules = parse(
        "access:\n"
        "- {name: no-corp, deny: ['registry.corp:5000/*', 'internal/*']}\n"
        "- {name: cool-down, allow: '*', min_age: 3d}\n"
    ).access
    assert [(rule.name, rule.allow, rule.deny, rule.min_age) for rule in rules] == [
        ("no-corp", (), ("registry.corp:5000/*", "internal/*"), 0),
        ("cool-down", ("*",), (), 3 * 86400),
    ]


def test_a_registry_may_have_host_names_and_others_may_be_asked():
    taken = parse("allow_any_registry: true\n" + docker_hub("hosts: [Hub.mirror.lan]"))
    assert taken.allow_any_registry
    assert taken.registries["docker.io"].hosts == ("hub.mirror.lan",)
    assert not parse("").allow_any_registry


# Mistakes: the text, its line, where, and words of what was found and what to write

ENDPOINT = "registries.docker.io.endpoints[0].url"
CREDENTIALS = "registries.docker.io.credentials"
FRESHNESS = "registries.docker.io.freshness"
ZEROS = "sha256:" + "0" * 64
A_SIZE = "write a size such as 50GiB"
A_TIME = "write a time such as 30s, 5m or 24h"
AN_ADDRESS = "write host:port such as 127.0.0.1:5000, or :5000 for every address of this host"
A_URL = "write a URL such as https://registry.example.com"
A_PLACE = "write a network such as 10.1.2.0/24, or a host name such as cdn.corp.local"
SECTION = "write its keys below it, indented"
A_NAME = "write a registry's host name such as ghcr.io"
A_REDIS = "write embedded, or redis://host:6379/0"


@pytest.mark.parametrize(
    ("text", "line", "where", "found", "write"),
    [
        # Keys
        ("\n\nworker: 2", 3, "worker", "a key that is not known", "write workers"),
        ("zzz: 2", 1, "zzz", "a key that is not known", "write one of listen, admin, workers"),
        ("endpoints: []", 1, "endpoints", "a key that is not known", "it below a registry, as in"),
        (
            "registries:\n  docker.io:\n  endpoints: [{url: https://a.example}]",
            3,
            "registries.endpoints",
            "no registry's name",
            "it below a registry, as in registries: {docker.io: {endpoints: …}}",
        ),
        (
            "registries: {docker.io: {endpoints: [{url: https://hub.docker.com/v2/}]}}",
            1,
            "registries.docker.io.endpoints[0].url",
            "hub.docker.com",
            "write https://registry-1.docker.io: that is Docker Hub's web site",
        ),
        ("storage: {path: '${HOME}/x'}", 1, "storage.path", "no variable", "the path itself"),
        ("storage: {path: $HOME/x}", 1, "storage.path", "no variable", "the path itself"),
        ("storage:\n  maxsize: 2", 2, "storage.maxsize", "a key that", "write max_size"),
        ("registry: x", 1, "registry", "a key that is not known", "write registries"),
        (docker_hub("endpoint: x"), 3, "registries.docker.io.endpoint", "", "write endpoints"),
        (docker_hub("freshness:\n  tll: 5m"), 4, f"{FRESHNESS}.tll", "", "write ttl"),
        (
            docker_hub(f"endpoints:\n- url: {HUB}\n  trusts: tags"),
            5,
            "registries.docker.io.endpoints[0].trusts",
            "a key that is not known",
            "write trust",
        ),
        (
            docker_hub("credentials:\n  username: me\n  password: x"),
            5,
            f"{CREDENTIALS}.password",
            "a key that is not known",
            "write password_file, with the path",
        ),
        ("workers: 1\nadmin: :9\nworkers: 2", 3, "workers", "this key twice", "at line 1 already"),
        (
            "registries:\n  docker.io:\n  ghcr.io:\n  docker.io:\n",
            4,
            "registries.docker.io",
            "this key twice",
            "at line 2 already",
        ),
        (docker_hub("quota:\n  lo: 5%"), 4, "registries.docker.io.quota.lo", "", "write low"),
        # Shares
        *(
            (
                docker_hub(f"quota: {{low: {text}}}"),
                3,
                "registries.docker.io.quota.low",
                found,
                "20%",
            )
            for text, found in (
                ("20", "'20'"),
                ("101%", "'101%'"),
                ("-1%", "'-1%'"),
                ("", "nothing"),
            )
        ),
        # Addresses
        ("listen: host", 1, "listen", "'host'", AN_ADDRESS),
        ("listen: 127.0.0.1:70000", 1, "listen", "'127.0.0.1:70000'", AN_ADDRESS),
        ("listen: 1.2.3.999:80", 1, "listen", "'1.2.3.999:80'", AN_ADDRESS),
        ("listen: 127.0.0.1:http", 1, "listen", "'127.0.0.1:http'", AN_ADDRESS),
        ("listen: '[::zz]:80'", 1, "listen", "'[::zz]:80'", AN_ADDRESS),
        ("listen: '[1.2.3.4]:80'", 1, "listen", "'[1.2.3.4]:80'", AN_ADDRESS),
        ("listen: http://x:80", 1, "listen", "'http://x:80'", AN_ADDRESS),
        ("listen: ::1:5000", 1, "listen", "'::1:5000'", "write an IPv6 address in brackets"),
        ("listen: -5", 1, "listen", "'-5'", AN_ADDRESS),
        ("log: {format: xml}", 1, "log.format", "'xml'", "write auto or json or text"),
        ("log: {level: loud}", 1, "log.level", "'loud'", "debug or info or warning or error"),
        ("log: {requests: some}", 1, "log.requests", "'some'", "all or misses or none"),
        ("log: debug", 1, "log", "text", "its keys below it"),
        ("log: {levle: info}", 1, "log.levle", "a key that is not known", "write level"),
        ("admin:", 1, "admin", "nothing", AN_ADDRESS),
        ("admin: [a]", 1, "admin", "a list", AN_ADDRESS),
        ("admin: {write: yes}", 1, "admin.write", "'yes'", "write true or false"),
        ("admin: {listen: host}", 1, "admin.listen", "'host'", AN_ADDRESS),
        ("admin: {listen: ':5000'}", 1, "admin.listen", "port 5000, which is listen's too", "5001"),
        ("admin: {wrote: true}", 1, "admin.wrote", "a key that is not known", "write write"),
        ("admin: {token: x}", 1, "admin.token", "", "write token_file, with the path"),
        (
            "admin: {listen: ':5001', write: true}",
            1,
            "admin.write",
            "true at :5001, not a loopback one",
            "write token_file: too",
        ),
        ("admin: 5000", 1, "admin", "port 5000, which is listen's too", "write another port"),
        ("listen: :5001", 1, "listen", "port 5001, which is admin's too", "127.0.0.1:5002"),
        ("admin: 127.0.0.1:80\nlisten: :80", 1, "admin", "port 80, which", "127.0.0.1:81"),
        # Numbers, words, sizes, times, paths
        ("limits: {fills: 0}", 1, "limits.fills", "'0'", "write a whole number from 1 to 4096"),
        ("limits: {blob: 1}", 1, "limits.blob", "'1'", "write a size such as 50GiB"),
        ("limits: {idle: 60}", 1, "limits.idle", "'60'", "write the unit too, such as 60s"),
        ("storage: {min_free: x}", 1, "storage.min_free", "'x'", "a size such as 10GiB, or 0"),
        ("storage: {pin: ['a b']}", 1, "storage.pin[0]", "'a b'", "such as library/redis:7"),
        ("storage: {scrub: often}", 1, "storage.scrub", "'often'", "write a time such as 30s"),
        ("workers: 0", 1, "workers", "'0'", "write a whole number from 1 to 256, or auto"),
        ("workers: 1.5", 1, "workers", "'1.5'", "write a whole number from 1 to 256, or auto"),
        ("workers: many", 1, "workers", "'many'", "write a whole number from 1 to 256, or auto"),
        ("storage:\n  max_size: 50GBB", 2, "storage.max_size", "'50GBB'", A_SIZE),
        ("storage:\n  max_size: 50gib", 2, "storage.max_size", "'50gib'", A_SIZE),
        ("storage:\n  max_size: -1GiB", 2, "storage.max_size", "'-1GiB'", A_SIZE),
        ("storage:\n  max_size: 50", 2, "storage.max_size", "'50'", f"{A_SIZE}, from 1MiB"),
        ("storage:\n  max_size: 9999999TiB", 2, "storage.max_size", "'9999999TiB'", A_SIZE),
        ("storage:\n  max_size: ٥GiB", 2, "storage.max_size", "'\\u0665GiB'", A_SIZE),
        ("storage:\n  path: ''", 2, "storage.path", "nothing", "write a path such as /var/lib"),
        ('storage:\n  path: "a\\0"', 2, "storage.path", "control characters", "write a path"),
        ("storage:\n  durability: some", 2, "storage.durability", "'some'", "write full or none"),
        (
            docker_hub("freshness: {ttl: 5}"),
            3,
            f"{FRESHNESS}.ttl",
            "'5'",
            "the unit too, such as 5s",
        ),
        (docker_hub("freshness: {stale: 24hr}"), 3, f"{FRESHNESS}.stale", "'24hr'", A_TIME),
        (docker_hub("freshness: {ttl: 1h30m}"), 3, f"{FRESHNESS}.ttl", "'1h30m'", A_TIME),
        (docker_hub("freshness: {ttl: -5m}"), 3, f"{FRESHNESS}.ttl", "'-5m'", A_TIME),
        (docker_hub("freshness: {ttl: 9999d}"), 3, f"{FRESHNESS}.ttl", "'9999d'", "3650d at most"),
        # Freshness by pattern
        (
            docker_hub("freshness:\n- ttl: 1m\n  mach: x"),
            5,
            f"{FRESHNESS}[0].mach",
            "a key that is not known",
            "write match",
        ),
        (docker_hub("freshness:\n- ttl: 1"), 4, f"{FRESHNESS}[0].ttl", "'1'", "such as 1s"),
        (docker_hub("freshness:\n- 5m"), 4, f"{FRESHNESS}[0]", "text", "library/*:latest"),
        (docker_hub("freshness: []"), 3, FRESHNESS, "an empty list", "- {ttl: 5m} below it"),
        (docker_hub("freshness: 5m"), 3, FRESHNESS, "text", SECTION),
        (
            docker_hub("freshness: {on_404: ignore}"),
            3,
            f"{FRESHNESS}.on_404",
            "'ignore'",
            "write believe or keep",
        ),
        (
            docker_hub("freshness:\n- match: 'a b'"),
            4,
            f"{FRESHNESS}[0].match",
            "'a b'",
            "such as library/redis:7",
        ),
        (
            docker_hub("freshness:\n- match: []\n- ttl: 1m"),
            4,
            f"{FRESHNESS}[0].match",
            "an empty list",
            "a pattern",
        ),
        (
            docker_hub("freshness:\n- ttl: 1m\n- {match: bob/*, ttl: 2m}"),
            5,
            f"{FRESHNESS}[1]",
            "a rule after [0], which is for all tags",
            "write it before, or match: at [0]",
        ),
        (
            docker_hub("freshness:\n  immutable: true"),
            4,
            f"{FRESHNESS}.immutable",
            "latest too",
            "match: with tags that never move",
        ),
        # Frozen tags
        ("pin: redis", 1, "pin", "text", SECTION),
        ("pin:\n  Redis: 2026-11-01", 2, "pin.Redis", "'Redis'", "an image such as redis:7"),
        (
            f"pin:\n  redis@{ZEROS}: 2026-11-01",
            2,
            "pin.'***@sha256:***'",
            "with a digest",
            "redis:latest",
        ),
        ("pin:\n  redis: yesterday", 2, "pin.redis", "'yesterday'", "a date such as 2026-11-01"),
        ("pin:\n  redis: 2026-13-01", 2, "pin.redis", "'2026-13-01'", "a date such as"),
        ("pin:\n  redis: 0001-01-01", 2, "pin.redis", "'0001-01-01'", "of this century"),
        ("pin:\n  redis: sha256:12", 2, "pin.redis", "'sha256:12'", "64 lower-case hex digits"),
        ("pin:\n  redis:", 2, "pin.redis", "nothing", "a date such as 2026-11-01"),
        (
            "pin:\n  redis: 2026-11-01\n  library/redis:latest: 2026-11-02",
            3,
            "pin.'library/redis:***'",
            "docker.io/library/redis:latest a second time",
            "it once: redis is it too",
        ),
        (
            "pin:\n  ghcr.io/acme/app: 2026-11-01",
            2,
            "pin.'ghcr.io/acme/app'",
            "an image of ghcr.io, which is not mirrored",
            "one of docker.io",
        ),
        # Sections of the wrong kind
        ("storage: ./data", 1, "storage", "text", SECTION),
        ("storage: [a]", 1, "storage", "a list", SECTION),
        ("registries: [docker.io]", 1, "registries", "a list", SECTION),
        ("registries:\n  docker.io: []", 2, "registries.docker.io", "a list", SECTION),
        (docker_hub("credentials: x"), 3, CREDENTIALS, "text", SECTION),
        (docker_hub("endpoints: x"), 3, "registries.docker.io.endpoints", "text", "write a list"),
        (
            docker_hub("endpoints: {url: x}"),
            3,
            "registries.docker.io.endpoints",
            "keys and values",
            "write a list: '- ' before each item",
        ),
        (
            docker_hub(f"endpoints:\n- {HUB}"),
            4,
            "registries.docker.io.endpoints[0]",
            "text",
            "write - url: https://registry.example.com",
        ),
        # The tag store
        ("tags:\n  store: redis", 2, "tags.store", "'redis'", A_REDIS),
        ("tags:\n  store: memcached://x", 2, "tags.store", "another store", A_REDIS),
        (
            "tags:\n  store: redis://",
            2,
            "tags.store",
            "a redis:// URL that cannot",
            "user:password@",
        ),
        ("tags:\n  store: redis://h#0", 2, "tags.store", "a redis:// URL that", "password_file"),
        ("tags:\n  store: redis://h:0", 2, "tags.store", "a redis:// URL that", "password_file"),
        (
            "tags:\n  store: rediss://h/x",
            2,
            "tags.store",
            "a rediss:// URL that",
            "write rediss://",
        ),
        (
            "tags:\n  store: redis+sentinel://h:26379",
            2,
            "tags.store",
            "a redis+sentinel:// URL that",
            "h3:26379/mymaster/0",
        ),
        (
            "tags:\n  store: redis://h\n  sentinel_password_file: {file}",
            3,
            "tags.sentinel_password_file",
            "a key of sentinels",
            "store: redis+sentinel://",
        ),
        ("tags:\n  store: redis://h\n  ca_file: {file}", 3, "tags.ca_file", "", "store: rediss://"),
        ("tags:\n  password_file: {file}", 2, "tags.password_file", "embedded", "store: redis://"),
        (
            "tags:\n  password_file: {file}\n  store: redis://:x@h",
            3,
            "tags.store",
            "a password in the URL and password_file",
            "write the URL without the password",
        ),
        (
            "tags:\n  store: redis://h\n  password_file: {file}\n  password_env: LOGIN",
            4,
            "tags.password_env",
            "a password besides password_file",
            "write one of them",
        ),
        (
            "tags:\n  store: rediss://h\n  ca_file: /etc/missing.pem",
            3,
            "tags.ca_file",
            "'/etc/missing.pem': no such file",
            "write the path of a readable file",
        ),
        # Access
        ("allow_any_registry: yes", 1, "allow_any_registry", "'yes'", "write true or false"),
        ("sync: redis", 1, "sync", "text", "write a list"),
        ("sync:\n- redis", 2, "sync[0]", "text", "write - {images: [redis:7], every: 6h}"),
        ("sync:\n- {every: 6h}", 2, "sync[0].images", "no images", "write images: too"),
        ("sync:\n- {images: []}", 2, "sync[0].images", "nothing", "write a list such as"),
        ("sync:\n- {images: [Redis]}", 2, "sync[0].images[0]", "'Redis'", "an image such as"),
        ("sync:\n- {images: ['@/none']}", 2, "sync[0].images[0]", "no such file", "readable file"),
        ("sync:\n- {images: [quay.io/a]}", 2, "sync[0].images[0]", "quay.io", "one of docker.io"),
        ("sync:\n- {images: a, evry: 6h}", 2, "sync[0].evry", "a key that", "write every"),
        ("sync:\n- {images: a, every: 1s}", 2, "sync[0].every", "'1s'", "1m at least"),
        ("sync:\n- {images: a, newest: 0}", 2, "sync[0].newest", "'0'", "from 1 to"),
        ("sync:\n- {images: a, platforms: [x86]}", 2, "sync[0].platforms[0]", "'x86'", "or all"),
        ("sync:\n- {images: a, window: 1-5}", 2, "sync[0].window", "'1-5'", "01:00-05:00"),
        ("sync:\n- {images: a, window: '25:00-1:00'}", 2, "sync[0].window", "'25:00", "24:00"),
        ("sync:\n- {images: a, window: '1:00-2:00 Mars'}", 2, "sync[0].window", "Mars", "or UTC"),
        ("sync:\n- {images: a, spare_quota: 5}", 2, "sync[0].spare_quota", "'5'", "such as 20%"),
        (
            "sync:\n- images: a\n- images: a\n  name: '1'",
            4,
            "sync[1].name",
            "'1' a second time",
            "another name",
        ),
        ("access: {a: b}", 1, "access", "keys and values", "write a list"),
        ("access: [x]", 1, "access[0]", "text", "write - {name: no-internal, deny: internal/*}"),
        ("access:\n- name: a\n  denny: x", 3, "access[0].denny", "a key that", "write deny"),
        ("access:\n- {deny: x}", 2, "access[0].name", "no name", "write name: too"),
        ("access:\n- {name: a}", 2, "access[0]", "neither allow nor deny", "write allow: or deny"),
        ("access:\n- {name: a b, deny: x}", 2, "access[0].name", "'a b'", "such as no-internal"),
        ("access:\n- {name: a, deny: []}", 2, "access[0].deny", "an empty list", "a repository"),
        ("access:\n- {name: a, deny: a b}", 2, "access[0].deny", "'a b'", "write a repository"),
        (
            "access:\n- name: a\n  deny: x\n  allow: y",
            3,
            "access[0].deny",
            "deny besides allow",
            "write one of them",
        ),
        (
            "access:\n- name: a\n  deny: x\n  min_age: 3d",
            4,
            "access[0].min_age",
            "min_age at a rule that denies",
            "write allow: with it",
        ),
        (
            "access:\n- {name: a, deny: x}\n- {name: a, deny: y}",
            3,
            "access[1].name",
            "'a' a second time",
            "write another name",
        ),
        (
            "access:\n- {name: a, deny: 'library/redis:7'}",
            2,
            "access[0].deny",
            "'library/redis:7'",
            "write library/redis: a rule is for a repository with all its tags",
        ),
        (docker_hub("hosts: [m:5000]"), 3, "registries.docker.io.hosts[0]", "'m:5000'", "write m"),
        (
            docker_hub("hosts: [m, https://m]"),
            3,
            "registries.docker.io.hosts[1]",
            "'https://m'",
            "write a host name such as ghcr.mirror.lan",
        ),
        (
            "registries:\n  docker.io: {hosts: [m.lan]}\n  ghcr.io: {hosts: [g.lan, M.lan]}",
            3,
            "registries.ghcr.io.hosts[1]",
            "'M.lan', which is docker.io's too",
            "write another host name",
        ),
        # Registries
        *(
            (
                f"registries:\n  {first}:\n  {second}:",
                3,
                f"registries.{second}",
                f"{second!r}, which is {first} again",
                "it once",
            )
            for first, second in (
                ("Docker.io", "docker.io"),
                ("docker.io", "index.docker.io"),
                ("registry-1.docker.io", "registry.hub.docker.com"),
            )
        ),
        (
            "registries:\n  ghcr.io:\n  ghcr.io:443:\ndefault_registry: ghcr.io",
            3,
            "registries.ghcr.io:443",
            "'ghcr.io:443', which is ghcr.io again",
            "it once",
        ),
        (
            "registries:\n  docker.io:\n  https://quay.io/x:",
            3,
            "",
            "'https://quay.io/x'",
            "quay.io",
        ),
        ("registries:\n  docker.io:\n  a_b.io:", 3, "registries.a_b.io", "'a_b.io'", A_NAME),
        ("registries:\n  docker.io:\n  h:99999:", 3, "registries.h:99999", "'h:99999'", A_NAME),
        ("default_registry: GHCR.io", 1, "default_registry", "'GHCR.io'", "write docker.io"),
        ("default_registry: http://GHCR.io", 1, "default_registry", "GHCR.io'", "write ghcr.io"),
        ("default_registry: ghcr.io", 1, "default_registry", "not among", "write docker.io"),
        (
            "listen: :1\nregistries:\n  ghcr.io:\n  quay.io:",
            2,
            "registries",
            "no docker.io, which is the default_registry",
            "write default_registry: ghcr.io or quay.io, or add docker.io: here",
        ),
        # Endpoints
        (docker_hub("endpoints:\n- trust: tags"), 4, ENDPOINT, "no url", "write url: too"),
        (docker_hub("endpoints: []"), 3, "registries.docker.io.endpoints", "an empty", "- url: "),
        (
            docker_hub("endpoints:\n- url: ghcr.io"),
            4,
            ENDPOINT,
            "'ghcr.io'",
            "write https://ghcr.io",
        ),
        (docker_hub("endpoints:\n- url: ftp://x"), 4, ENDPOINT, "'ftp://x'", A_URL),
        (docker_hub("endpoints:\n- url: https://"), 4, ENDPOINT, "'https://'", A_URL),
        (docker_hub("endpoints:\n- url: https://x:0"), 4, ENDPOINT, "'https://x:0'", A_URL),
        (docker_hub("endpoints:\n- url: https://x:70000"), 4, ENDPOINT, "'https://x:70000'", A_URL),
        (docker_hub("endpoints:\n- url: 'https://x:'"), 4, ENDPOINT, "'https://x:***'", A_URL),
        (docker_hub("endpoints:\n- url: 'https://[::1'"), 4, ENDPOINT, "'https://[::1'", A_URL),
        (docker_hub("endpoints:\n- url: https://a b"), 4, ENDPOINT, "'https://a b'", A_URL),
        (docker_hub("endpoints:\n- url: https://ü.de"), 4, ENDPOINT, "'https://\\xfc.de'", A_URL),
        (docker_hub("endpoints:\n- url: 'https://a\\b.c'"), 4, ENDPOINT, "'https://a", A_URL),
        (docker_hub("endpoints:\n- url: https://127.1"), 4, ENDPOINT, "'https://127.1'", A_URL),
        (
            docker_hub("endpoints:\n- url: https://h/v2/Hub"),
            4,
            ENDPOINT,
            "'https://h/v2/Hub'",
            "in lower case, as in https://h/v2/dockerhub-proxy",
        ),
        (docker_hub("endpoints:\n- url: https://h/a/../b"), 4, ENDPOINT, "/../b'", "'//' and '..'"),
        (docker_hub("endpoints:\n- url: https://h/a//b"), 4, ENDPOINT, "a//b'", "'//' and '..'"),
        (docker_hub("endpoints:\n- url: https://h/a%2Fb"), 4, ENDPOINT, "a%2Fb'", "without '%'"),
        (docker_hub("endpoints:\n- url: https://h/V2/a"), 4, ENDPOINT, "V2/a'", "v2 in lower case"),
        (docker_hub("endpoints:\n- url: https://h/v2/a?x"), 4, ENDPOINT, "?***'", "without '?'"),
        (
            docker_hub("endpoints:\n- url: https://index.docker.io/v1/"),
            4,
            ENDPOINT,
            "'https://index.docker.io/v1/'",
            f"write {HUB}: a registry is asked at /v2/",
        ),
        (
            docker_hub("endpoints:\n- url: https://h:1/v1"),
            4,
            ENDPOINT,
            "v1'",
            "write https://h:1: ",
        ),
        (
            docker_hub("endpoints:\n- url: https://h\n  prefix: Hub"),
            5,
            "registries.docker.io.endpoints[0].prefix",
            "'Hub'",
            "as in dockerhub-proxy or group/hub",
        ),
        (
            docker_hub("endpoints:\n- url: https://h\n  prefix: v2/hub"),
            5,
            "registries.docker.io.endpoints[0].prefix",
            "'v2/hub'",
            "write it without v2",
        ),
        (
            docker_hub("endpoints:\n- url: https://h\n  prefix: https://me:pw@h/hub"),
            5,
            "registries.docker.io.endpoints[0].prefix",
            "'https://***@h/hub'",
            "the beginning of repositories' names",
        ),
        (
            docker_hub("endpoints:\n- url: https://h/v2/a\n  prefix: b"),
            5,
            "registries.docker.io.endpoints[0].prefix",
            "a prefix in 'https://h/v2/a' too",
            "write it once",
        ),
        (
            docker_hub("endpoints:\n- url: https://h/a\n  prefix: a"),
            5,
            "registries.docker.io.endpoints[0].prefix",
            "what stands in 'https://h/a' too",
            "write url: https://h, or https://h/a/v2/a",
        ),
        (
            docker_hub("endpoints:\n- url: https://h/v2/a\n- {url: https://h, prefix: a}"),
            5,
            "registries.docker.io.endpoints[1].url",
            "'https://h/v2/a' a second time",
            "write it once",
        ),
        (docker_hub(f"endpoints:\n- url: {HUB}?a=b"), 4, ENDPOINT, "?***'", "without '?' and '#'"),
        (
            docker_hub("endpoints:\n- url: https://me:pw@h"),
            4,
            ENDPOINT,
            "'https://***@h'",
            "write the URL without a login: it goes into the registry's credentials",
        ),
        (
            docker_hub(f"endpoints:\n- url: {HUB}\n  trust: all"),
            5,
            "registries.docker.io.endpoints[0].trust",
            "'all'",
            "write tags or content",
        ),
        (
            docker_hub(f"endpoints:\n- url: {HUB}\n  trust: content"),
            3,
            "registries.docker.io.endpoints",
            "trust: content at every endpoint",
            "write trust: tags at the registry's own",
        ),
        (
            docker_hub(f"endpoints:\n- url: {HUB}\n- url: {HUB}/"),
            5,
            "registries.docker.io.endpoints[1].url",
            f"'{HUB}' a second time",
            "write it once",
        ),
        # Credentials
        (docker_hub("credentials: {username: me}"), 3, CREDENTIALS, "no secret", "password_file, "),
        (
            docker_hub("credentials:\n  - {username: me, token_env: LOGIN}\n  - {username: you}"),
            5,
            f"{CREDENTIALS}[1]",
            "no secret",
            "password_file, ",
        ),
        (
            docker_hub(
                "credentials:\n  - {username: me, token_env: LOGIN}\n"
                "  - {username: me, token_env: LOGIN}"
            ),
            5,
            f"{CREDENTIALS}[1].username",
            "a login a second time",
            "each login once",
        ),
        (
            docker_hub("credentials: [x]"),
            3,
            f"{CREDENTIALS}[0]",
            "text",
            "{username: me, password_file: ",
        ),
        (
            docker_hub("credentials:\n  - {username: me, pasword_file: x}"),
            4,
            f"{CREDENTIALS}[0].pasword_file",
            "a key that is not known",
            "password_file",
        ),
        (
            docker_hub(f"endpoints:\n  - url: {HUB}\n    credentials: {{username: me}}"),
            5,
            "registries.docker.io.endpoints[0].credentials",
            "no secret",
            "password_file, ",
        ),
        (
            docker_hub(f"endpoints:\n  - url: {HUB}\n    connections: 0"),
            5,
            "registries.docker.io.endpoints[0].connections",
            "'0'",
            "a whole number from 1 to 1024",
        ),
        (docker_hub("credentials: {}"), 3, CREDENTIALS, "no secret", "write password_file, "),
        (
            docker_hub("credentials:\n  username: me\n  identity_token: x"),
            5,
            f"{CREDENTIALS}.identity_token",
            "a key that is not known",
            "write identity_token_file, with the path",
        ),
        (
            docker_hub("credentials:\n  token_env: LOGIN\n  identity_token_env: LOGIN"),
            5,
            f"{CREDENTIALS}.identity_token_env",
            "a secret besides token_env",
            "write one of them",
        ),
        (
            docker_hub("credentials:\n  token_env: LOGIN\n  credential_helper: pass"),
            5,
            f"{CREDENTIALS}.credential_helper",
            "a secret besides token_env",
            "write one of them",
        ),
        *(
            (
                docker_hub(f"credentials:\n  credential_helper: {name}"),
                4,
                f"{CREDENTIALS}.credential_helper",
                "what is no credential helper's name",
                "such as ecr-login for the program docker-credential-ecr-login",
            )
            for name in (
                "/usr/bin/docker-credential-pass",
                "../pass",
                "pass;id",
                "a b",
                "docker-credential-pass",
                "x" * 65,
                "pässe",
            )
        ),
        (
            docker_hub("credentials: {password_env: LOGIN}"),
            3,
            CREDENTIALS,
            "password_env without a username",
            "write username: too",
        ),
        (
            docker_hub("credentials:\n  username: me\n  token_env: LOGIN\n  password_env: LOGIN"),
            6,
            f"{CREDENTIALS}.password_env",
            "a secret besides token_env",
            "write one of them",
        ),
        (
            docker_hub("credentials: {username: 'a:b', password_env: LOGIN}"),
            3,
            f"{CREDENTIALS}.username",
            "a colon",
            "write the user's name",
        ),
        (
            docker_hub("credentials: {token_env: MISSING}"),
            3,
            f"{CREDENTIALS}.token_env",
            "a variable that is not set",
            "write the name of an environment variable",
        ),
        (
            docker_hub("credentials: {token_env: EMPTY}"),
            3,
            f"{CREDENTIALS}.token_env",
            "a variable that is empty",
            "write the name of an environment variable",
        ),
        (
            docker_hub("credentials: {token_env: SPACED}"),
            3,
            f"{CREDENTIALS}.token_env",
            "a token with spaces",
            "write the token as issued",
        ),
        # Realms and private places
        (
            docker_hub("realm: auth"),
            3,
            "registries.docker.io.realm",
            "'auth'",
            "write a URL such as",
        ),
        (
            docker_hub("realm: https://a/?b"),
            3,
            "registries.docker.io.realm",
            "'https://a/?***'",
            "",
        ),
        (
            docker_hub("allow_private: 10.0.0.0/8"),
            3,
            "registries.docker.io.allow_private",
            "text",
            "write a list",
        ),
        (
            docker_hub("allow_private:\n- 10.1.2.3/24"),
            4,
            "registries.docker.io.allow_private[0]",
            "'10.1.2.3/24'",
            "write 10.1.2.0/24",
        ),
        (
            docker_hub("allow_private:\n- ok.corp\n- '*corp'"),
            5,
            "registries.docker.io.allow_private[1]",
            "'*corp'",
            A_PLACE,
        ),
        # YAML
        ("listen: :1\n\tadmin: :2", 2, "", "", "write "),
        ("storage:\n\tpath: x", 2, "", "a tab", "write spaces"),
        ("listen: a: b", 1, "", "a ': ' where no key can stand", "needs quotes"),
        (
            "listen: 'a\nadmin: b\n",
            1,
            "",
            "a quote that is never closed",
            "write the closing quote",
        ),
        ("storage: {path: a\nworkers: 1\n", 2, "", "a bracket that is never closed", ""),
        (
            "listen: @a",
            1,
            "",
            "a value that begins with a sign of YAML's own",
            "write it in quotes",
        ),
        ("storage:\n  path: a\n max_size: b", 3, "", "indented unlike its neighbours", ""),
        ("listen: a\nadmin\nworkers: 1\n", 2, "", "a line that is no 'key: value'", "a colon"),
        ("listen: '\x07'", 1, "", "an unprintable character", "write plain UTF-8 text"),
        ("? [a]\n: b", 1, "", "a key that is no text", "write 'key: value'"),
        ("workers: 1\n---\nworkers: 2", 2, "", "a second document", "write one document"),
        ("- a\n", 1, "", "a list", "write 'key: value' lines"),
        ("hello", 1, "", "text", "write 'key: value' lines"),
        ("%YAML 9.0\n---\na: b", 1, "", "text that is not YAML", "write 'key: value' lines"),
    ],
)
def test_a_mistake_is_told(text, line, where, found, write, secret_file, monkeypatch):
    monkeypatch.setenv("LOGIN", SECRET)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SPACED", "Bearer x")
    monkeypatch.delenv("MISSING", raising=False)
    problem = only_problem(text.replace("{file}", str(secret_file)))
    place = f"mirror.yaml:{line}: " + (f"{where}: " if where else "")
    assert problem.startswith(place)
    said, _, advised = problem.partition(", write ")
    assert found in said
    assert write.removeprefix("write ") in advised


def test_a_mistake_is_one_line_in_this_form():
    assert only_problem("\n\nstorage:\n  max_size: 50GBB") == (
        "mirror.yaml:4: storage.max_size: found '50GBB', write a size such as 50GiB"
    )


def test_all_mistakes_are_told_at_once_in_the_files_order():
    found = problems(
        "listen: 127.0.0.1:5000\n"
        "admin: :5000\n"
        "worker: 2\n"
        "storage:\n"
        "  max_size: 50GBB\n"
        "  max_size: 50GiB\n"
        "tags: {store: redis:/}\n"
        "default_registry: quay.io\n"
        "registries:\n"
        "  docker.io:\n"
        "    endpoints:\n"
        "      - url: https://registry-1.docker.io/v1/\n"
        "        trust: content\n"
        "    credentials: {password_env: NO_SUCH_VARIABLE, token_env: NO_SUCH_VARIABLE}\n"
        "    freshness: {ttl: 5, stale: 1y}\n"
        "  ghcr.io: {realm: x}\n"
    )
    assert [int(line.split(":")[1]) for line in found] == [
        *(2, 3, 5, 6, 7, 8, 11, 12, 14, 14, 14, 14, 15, 15, 16)
    ]


def test_hostile_values_are_escaped_and_cut():
    problem = only_problem(f"workers: '{'é' * 1000}'")
    assert problem.isascii() or problem.replace("…", "").isascii()
    assert len(problem) < 600
    problem = only_problem(f"'{'k' * 5000}': 1")
    assert len(problem) < 600


# YAML that costs more than it is long, or makes objects


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "workers: &a 1\nadmin: *a\nlisten: !!python/object/apply:os.system ['x']\n",
            ["1: found an anchor", "2: found an alias", "3: found a YAML tag"],
        ),
        (
            "a: &a [x]\n" + "b: &b [*a, *a]\n",
            ["1: found an anchor", "2: found an anchor", "2:", "2:"],
        ),
        ("a: &a [*a]\n", ["1: found an anchor", "1: found an alias"]),
        ("<<: *a\n", ["1: found an alias"]),
    ],
)
def test_f72_anchors_aliases_and_tags_are_refused_all_at_once(text, expected):
    found = problems(text)
    assert len(found) == len(expected)
    for problem, words in zip(found, expected, strict=True):
        assert problem.startswith(f"mirror.yaml:{words}")


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "[{a: "])
def test_f72_deep_documents_are_refused(opening):
    found = only_problem(opening * (document.MAX_LENGTH // len(opening)))
    assert f"more than {document.MAX_DEPTH} levels" in found


def test_f72_a_tag_makes_nothing(tmp_path):
    made = tmp_path / "made"
    problems(f"listen: !!python/object/apply:pathlib.Path.touch [{made}]")
    problems(f"listen: !!python/object/apply:os.mkdir ['{made}']")
    assert not made.exists()


def test_f72_a_huge_text_is_refused_unread():
    assert only_problem("#" * (document.MAX_LENGTH + 1)) == (
        "mirror.yaml: found more than 256 KiB, write a configuration smaller than that"
    )


WITHOUT_COMMENTS = re.sub(r"(?m)^ *#.*\n|^\n", "", SHIPPED.read_text())


@settings(deadline=None)
@given(
    at=st.integers(0, len(WITHOUT_COMMENTS)),
    removed=st.integers(0, 20),
    put=st.text(st.sampled_from("\t \n:#-[]{}&*!|>'\"%@`,?~=<0aé\ud800\x00\ufeff"), max_size=4),
)
def test_whatever_is_written_is_taken_or_told(at, removed, put):
    text = WITHOUT_COMMENTS[:at] + put + WITHOUT_COMMENTS[at + removed :]
    try:
        taken = parse(text)
    except ConfigError as error:
        assert "found" in str(error).encode().decode()  # noqa: PT017 - most are told, not all
    else:
        assert isinstance(taken, Config)


# Files


def load_problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    (problem,) = caught.value.problems
    return str(problem)


def test_a_missing_file(tmp_path):
    path = tmp_path / "missing.yaml"
    assert load_problem(path) == (
        f"{path}: found no such file or directory, write the path of a readable configuration file"
    )


def test_a_folder(tmp_path):
    assert load_problem(tmp_path).startswith(f"{tmp_path}: found is a directory, write the path")


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "mirror.yaml"
    path.write_bytes(b"workers: 1\n# caf\xe9\n")
    assert load_problem(path) == (
        f"{path}:2: found bytes that are no UTF-8, write the file as UTF-8 text"
    )
    path.write_text("workers: 1\n", encoding="utf-16")
    assert "no UTF-8" in load_problem(path)


def test_a_file_without_end():
    assert "more than 256 KiB" in load_problem(Path("/dev/zero"))


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("workers: 0\n")
    assert load_problem(path).startswith(f"{path}:1: workers: found '0', write ")


def test_the_shipped_file_is_plain_yaml_for_other_tools():
    assert yaml.safe_load(SHIPPED.read_text())["registries"]["docker.io"]["endpoints"] == [
        {"url": HUB, "trust": "tags", "connections": 32}
    ]
