"""Which proxy a URL is asked by: in the words of curl and of Go's httpproxy."""

from __future__ import annotations

import pytest

from mirror.app.endpoints import routes_of
from mirror.config import ConfigError, environment
from mirror.upstream.proxies import Exceptions, Proxy, Routes

PROXY = Proxy("http://proxy.corp:3128")


@pytest.mark.parametrize(
    ("entries", "url", "is_direct"),
    [
        ("*", "https://quay.io/", True),
        ("quay.io", "https://quay.io/", True),
        ("quay.io", "https://QUAY.IO/", True),
        ("quay.io", "https://quay.io./", True),
        ("quay.io", "https://cdn.quay.io/", True),
        ("quay.io", "https://notquay.io/", False),
        ("Quay.IO.", "https://quay.io/", True),
        (".quay.io", "https://cdn.quay.io/", True),
        (".quay.io", "https://quay.io/", False),
        ("*.quay.io", "https://cdn.quay.io/", True),
        ("*.quay.io", "https://quay.io/", False),
        ("quay.io:443", "https://quay.io/", True),
        ("quay.io:443", "https://quay.io:8443/", False),
        ("quay.io:80", "http://quay.io/", True),
        (".quay.io:8443", "https://cdn.quay.io:8443/", True),
        ("10.1.2.3", "http://10.1.2.3:5000/", True),
        ("10.1.2.3:5000", "http://10.1.2.3:5000/", True),
        ("10.1.2.3:5001", "http://10.1.2.3:5000/", False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://ten.example/", False),  # nothing is resolved
        ("fd00::/8", "http://[fd00::1]:5000/", True),
        ("fd00::1", "http://[fd00::1]/", True),
        ("[fd00::1]:5000", "http://[fd00::1]:5000/", True),
        ("[fd00::1]:5001", "http://[fd00::1]:5000/", False),
        ("a.example, quay.io ,b.example", "https://quay.io/", True),
        ("a.example quay.io", "https://quay.io/", True),
        (":443,,.,10.0.0.0/99,quay.io:x", "https://quay.io/", False),  # nonsense means nothing
        ("", "https://quay.io/", False),
    ],
)
def test_no_proxy_means_the_hosts_that_it_means_to_container_clients(
    entries: str, url: str, is_direct: bool
) -> None:
    variables = {"HTTP_PROXY": PROXY.url, "HTTPS_PROXY": PROXY.url, "NO_PROXY": entries}
    routes = routes_of(environment(variables))
    assert routes.proxy_for(url) == (None if is_direct else PROXY)


@pytest.mark.parametrize(
    "url", ["http://localhost:5000/", "http://127.0.0.1/", "http://127.8.9.10/", "https://[::1]/"]
)
def test_this_machine_is_never_asked_by_the_environments_proxy(url: str) -> None:
    """As in Go. A proxy that is written at a registry is meant for it, wherever that is."""
    variables = {"HTTP_PROXY": PROXY.url, "HTTPS_PROXY": PROXY.url}
    assert routes_of(environment(variables)).proxy_for(url) is None
    assert Routes(PROXY, PROXY).proxy_for(url) == PROXY


@pytest.mark.parametrize(
    ("variables", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://a:1"}, "http://a:1", None),
        ({"HTTPS_PROXY": "http://a:1"}, None, "http://a:1"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, None, "http://a:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:1"}, None, "http://b:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"all_proxy": "http://a:1", "http_proxy": "http://b:1"}, "http://b:1", "http://a:1"),
        ({"ALL_PROXY": "socks5://a:1"}, None, None),
        ({"HTTPS_PROXY": "https://a"}, None, "https://a"),
        ({"HTTPS_PROXY": "a:3128"}, None, "http://a:3128"),
        ({"HTTPS_PROXY": " http://a:1/ "}, None, "http://a:1"),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128"}, None, "http://[fd00::1]:3128"),
    ],
)
def test_the_environments_variables(
    variables: dict[str, str], http: str | None, https: str | None
) -> None:
    found = environment(variables)
    assert (found.http and found.http.url, found.https and found.https.url) == (http, https)


def test_a_login_in_the_environment_is_used_and_not_shown() -> None:
    found = environment({"HTTPS_PROXY": "http://corp%5Cme:p%40ss:w%2Frd@proxy:3128"})
    assert found.https is not None
    assert found.https.password is not None
    assert found.https.url == "http://proxy:3128"
    assert found.https.username == "corp\\me"
    assert found.https.password.get_secret_value() == "p@ss:w/rd"
    for shown in (repr(found), repr(routes_of(found))):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("socks5://me:hunter2@proxy:1080", "an HTTP proxy"),
        ("ftp://me:hunter2@proxy:1080", "a URL such as"),
        ("http://me:hunter2@:3128", "a URL such as"),
        ("http://me:hunter2@proxy:99999", "a URL such as"),
        ("http://me:hunter2@proxy:3128/path", "a URL such as"),
    ],
)
def test_what_is_no_proxy_in_the_environment_is_told_without_its_login(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        environment({"HTTPS_PROXY": url})
    assert str(caught.value).startswith("the environment: HTTPS_PROXY: found ")
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_proxy_for_all_is_told_whatever_its_name_has_in_it() -> None:
    with pytest.raises(ConfigError, match="ALL_PROXY: found"):
        environment({"ALL_PROXY": "ftp://socks.corp:3128"})


def test_names_below_one_are_excepted_whatever_their_case() -> None:
    assert Exceptions.parse(["*.Corp.Example"]).means("cdn.corp.example", 443)
