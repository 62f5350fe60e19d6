"""mirror.yaml: the keys that say how connections are made (proxy, ca_file, client)."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest

from mirror import config
from mirror.app.endpoints import configured_endpoints
from mirror.config import Config, ConfigError
from mirror.upstream.endpoint import Endpoint
from mirror.upstream.proxies import Proxy

from .e2e.certificates import Certificate, issue
from .test_config import SECRET, docker_hub, only_problem, parse


@pytest.fixture(scope="session")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("tls"), ("mirror",))


@pytest.fixture(scope="session")
def files(issued: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and of bad certificates and keys."""
    folder = tmp_path_factory.mktemp("pem")
    both = issued.server.read_text()
    end = "-----END CERTIFICATE-----\n"
    cert, key = both[: both.index(end) + len(end)], both[both.index(end) + len(end) :]
    other = issue(tmp_path_factory.mktemp("other"), ("other",)).server.read_text()
    contents = {
        "ca.pem": issued.authority.read_text(),
        "bundle.pem": f"# the företag's\n{issued.authority.read_text()}\n{cert}",
        "both.pem": both,
        "cert.pem": cert,
        "key.pem": key,
        "other-key.pem": other[other.index(end) + len(end) :],
        "empty.pem": "",
        "text.pem": "hunter2-s3cr3t\n",
        "damaged.pem": cert.replace("MII", "AAA", 1),
        "broken-key.pem": key.replace(key[40:60], "A" * 20),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    (folder / "secret").write_text(SECRET + "\n")
    for argv in (
        ["x509", "-in", "ca.pem", "-outform", "der", "-out", "ca.der"],
        ["pkey", "-in", "key.pem", "-aes256", "-passout", "pass:hunter2", "-out", "locked.pem"],
    ):
        subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)
    (folder / "both-locked.pem").write_text(cert + (folder / "locked.pem").read_text())
    return folder


def endpoint(text: str) -> Endpoint:
    """The first endpoint of docker.io with these keys."""
    return configured_endpoints(parse(docker_hub(text)))["docker.io"][0]


def proxy_of(text: str, url: str = "https://quay.io/") -> Proxy | None:
    routes = endpoint(text).connecting.routes
    assert routes is not None
    return routes.proxy_for(url)


# proxy


def test_without_a_proxy_the_environment_counts() -> None:
    assert endpoint("hosts: []").connecting.routes is None


def test_none_is_asked_directly_whatever_the_environment_says() -> None:
    assert proxy_of("proxy: none") is None


@pytest.mark.parametrize(
    "url", ["http://proxy:3128", "https://proxy", "http://10.1.2.3:80", "http://[fd00::1]:3128"]
)
def test_a_proxy_is_a_url(url: str) -> None:
    for text in (f'proxy: "{url}"', f'proxy: {{url: "{url}"}}', f'proxy: "{url}/"'):
        found = proxy_of(text)
        assert found == Proxy(url)
        assert proxy_of(text, "http://registry.corp:5000/") == found


def test_a_proxys_login_is_read_from_its_file_and_not_shown(files: Path) -> None:
    text = f"proxy: {{url: http://p:1, username: me, password_file: {files}/secret}}"
    found = proxy_of(text)
    assert found is not None
    assert found.password is not None
    assert found.again is not None
    assert found.username == "me"
    assert found.password.get_secret_value() == SECRET
    assert found.again() == found.password
    parsed = parse(docker_hub(text))
    for shown in (repr(parsed), repr(configured_endpoints(parsed))):
        assert SECRET not in shown
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_exceptions_are_asked_directly() -> None:
    text = (
        "proxy: {url: http://p:1, except: [.corp, quay.io:443, 10.0.0.0/8, '[fd00::1]:5000', '*']}"
    )
    assert proxy_of(text) is None
    text = "proxy: {url: http://p:1, except: [.corp, 10.0.0.0/8]}"
    assert proxy_of(text, "https://cdn.corp/") is None
    assert proxy_of(text, "http://10.1.2.3:5000/") is None
    assert proxy_of(text, "https://corp/") == Proxy("http://p:1")


def test_an_endpoints_own_keys_go_before_the_registrys(files: Path) -> None:
    text = docker_hub(
        f"proxy: http://p:1\nca_file: {files}/ca.pem\nclient: {{cert: {files}/both.pem}}\n"
        "endpoints:\n"
        "- url: https://a\n"
        f"- {{url: https://b, proxy: none, ca_file: {files}/bundle.pem}}\n"
        "- {url: https://c, trust: content}\n"
        f"- {{url: https://d, trust: content, client: {{cert: {files}/both.pem}}}}"
    )
    a, b, c, d = (one.connecting for one in configured_endpoints(parse(text))["docker.io"])
    for one in (a, c, d):
        assert one.routes is not None
        assert one.routes.https == Proxy("http://p:1")
        assert one.authorities == a.authorities
    assert b.routes is not None
    assert b.routes.https is None
    assert b.authorities != a.authorities
    assert a.shown is not None
    assert a.shown == b.shown == d.shown
    assert c.shown is None  # only its own, as with credentials


@pytest.mark.parametrize(
    ("text", "where", "found", "write"),
    [
        ("proxy: socks5://me@p:1080", "proxy", "***@p:1080", "without a login"),
        ("proxy: socks5://p:1080", "proxy", "'socks5'", "an HTTP proxy's URL"),
        ("proxy: SOCKS5h://p:1080", "proxy", "'socks5h'", "an HTTP proxy's URL"),
        ("proxy: p:3128", "proxy", "p:3128", "http://proxy.corp.local:3128"),
        ("proxy: http://p:3128/x", "proxy", "", "http://proxy.corp.local:3128"),
        ("proxy: http://p:0", "proxy", "", "a URL"),
        ("proxy: 'http://me:hunter2-s3cr3t@p:1'", "proxy", "***@p:1", "username"),
        ("proxy: [http://p:1]", "proxy", "a list", "its keys below it"),
        ("proxy: {}", "proxy.url", "no url", "url: too"),
        ("proxy: {url: none, username: me}", "proxy.url", "none, and more keys", "proxy: none"),
        ("proxy: {url: http://p:1, username: me}", "proxy", "a username", "password_file"),
        (
            "proxy: {url: http://p:1, password_file: FILES/secret}",
            *("proxy", "without a username", "username: too"),
        ),
        (
            "proxy: {url: http://p:1, username: me, password: hunter2-s3cr3t}",
            *("proxy.password", "not known", "password_file, with the path"),
        ),
        ("proxy: {url: http://p:1, excepts: [x]}", "proxy.excepts", "not known", "write except"),
        ("proxy: {url: http://p:1, except: x}", "proxy.except", "text", "a list"),
        ("proxy: {url: http://p:1, except: ['x:y']}", "proxy.except[0]", "", "a name such as"),
        ("proxy: {url: http://p:1, except: ['a b']}", "proxy.except[0]", "", "a name such as"),
        # Certificates
        ("ca_file: FILES/missing.pem", "ca_file", "no such file", "a PEM file"),
        ("ca_file: FILES/empty.pem", "ca_file", "empty.pem', which has no PEM", "a PEM file"),
        ("ca_file: FILES/text.pem", "ca_file", "no PEM in it", "a PEM file"),
        ("ca_file: FILES/key.pem", "ca_file", "no certificate in it", "a PEM file"),
        ("ca_file: FILES/both.pem", "ca_file", "both.pem', which has a private key", "alone"),
        ("ca_file: FILES/ca.der", "ca_file", "DER, not PEM", "openssl x509 -inform der"),
        ("ca_file: FILES/damaged.pem", "ca_file", "damaged", "a PEM file"),
        ("client: FILES/both.pem", "client", "text", "its keys below it"),
        ("client: {key: FILES/key.pem}", "client.cert", "no cert", "cert: too"),
        ("client: {cert: FILES/cert.pem}", "client.cert", "no key", "key: too"),
        ("client: {cert: FILES/key.pem}", "client.cert", "no certificate", "a PEM file"),
        (
            "client: {cert: FILES/cert.pem, key: FILES/other-key.pem}",
            *("client.key", "other-key.pem', whose key is not that", "belongs to"),
        ),
        (
            "client: {cert: FILES/cert.pem, key: FILES/locked.pem}",
            *("client.key", "locked.pem', whose key has a passphrase", "openssl pkey"),
        ),
        (
            "client: {cert: FILES/both-locked.pem}",
            *("client.cert", "whose key has a passphrase", "openssl pkey"),
        ),
        (
            "client: {cert: FILES/cert.pem, key: FILES/broken-key.pem}",
            *("client.key", "broken-key.pem", "a certificate and its key"),
        ),
        (
            "client: {cert: FILES/cert.pem, key: FILES/cert.pem}",
            *("client.key", "no private key", "a PEM file"),
        ),
        (
            "client: {cert: FILES/cert.pem, key: '-----BEGIN PRIVATE KEY----- hunter2-s3cr3t'}",
            *("client.key", "PEM itself", "the path"),
        ),
        ("allow_private: ['*.10.0.0.1']", "allow_private[0]", "", "a network such as"),
        ("allow_private: ['a.*.example']", "allow_private[0]", "", "*.corp.local"),
    ],
)
def test_a_mistake_is_told(text: str, where: str, found: str, write: str, files: Path) -> None:
    told = only_problem(docker_hub(text.replace("FILES", str(files))))
    place, _, words = told.partition(": found ")
    assert place == f"mirror.yaml:3: registries.docker.io.{where}"
    said, _, advice = words.partition(", write ")
    assert found in said
    assert write in f"write {advice}"
    assert SECRET not in told


def test_a_key_is_not_shown(files: Path) -> None:
    parsed = parse(docker_hub(f"client: {{cert: {files}/cert.pem, key: {files}/key.pem}}"))
    for shown in (repr(parsed), str(parsed), repr(configured_endpoints(parsed))):
        assert "BEGIN" not in shown
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_a_file_that_was_written_anew_makes_another_endpoint(
    files: Path, issued: Certificate, tmp_path: Path
) -> None:
    ca, client = tmp_path / "ca.pem", tmp_path / "client.pem"
    password = tmp_path / "password"
    text = (
        f"ca_file: {ca}\nclient: {{cert: {client}}}\n"
        f"proxy: {{url: http://p:1, username: me, password_file: {password}}}"
    )

    def write(name: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        made = issue(folder, (name,))
        ca.write_bytes(made.authority.read_bytes())
        client.write_bytes(made.server.read_bytes())

    write("a", tmp_path / "a")
    password.write_text("one")
    first = endpoint(text)
    assert endpoint(text) == first
    kept = ca.read_bytes(), client.read_bytes()
    write("b", tmp_path / "b")
    renewed = ca.read_bytes(), client.read_bytes()
    for file, old, new in ((ca, kept[0], renewed[0]), (client, kept[1], renewed[1])):
        ca.write_bytes(kept[0])
        client.write_bytes(kept[1])
        assert endpoint(text) == first
        file.write_bytes(new)
        assert endpoint(text) != first
        file.write_bytes(old)
    password.write_text("two")
    assert endpoint(text) != first


def test_the_environments_mistakes_end_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hunter2@p:1080")
    monkeypatch.delenv("https_proxy", raising=False)
    with pytest.raises(ConfigError, match="HTTPS_PROXY: found 'socks5'"):
        config.load(None)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@p:1080")
    assert config.load(None) == Config()


def test_each_endpoint_has_its_own_realm_or_the_registrys(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    login = f"credentials: {{username: me, password_file: {secret}}}"
    text = docker_hub(
        "realm: https://auth.corp/token\n"
        "endpoints:\n"
        "  - {url: https://a}\n"
        "  - {url: https://b, realm: https://b.corp/token}\n"
        "  - {url: https://c, trust: content}\n"
        f"  - {{url: https://d, trust: content, {login}}}\n"
        "  - {url: https://e, trust: content, realm: https://e.corp/token}\n"
    )
    realms = [one.logins.realm for one in configured_endpoints(parse(text))["docker.io"]]
    assert realms == [
        "https://auth.corp/token",
        "https://b.corp/token",
        None,  # an accelerator that anybody may ask has a realm of its own
        "https://auth.corp/token",
        "https://e.corp/token",
    ]
