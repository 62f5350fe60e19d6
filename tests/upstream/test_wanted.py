"""How a registry's challenges are read: which is answered, where, and who may see the login."""

from __future__ import annotations

import pytest
from yarl import URL

from mirror.oci.challenges import parse_challenges
from mirror.upstream.client.wanted import Basic, Bearer, Demands, Wanted


def chosen(
    *lines: str, url: str = "https://ghcr.io", realm: str | None = None, login: bool = False
) -> Wanted | None:
    demands = Demands(URL(url), URL(realm) if realm else None)
    return demands.chosen(parse_challenges(lines), login)


def realm_of(named: str, *, url: str = "https://ghcr.io", realm: str | None = None) -> str | None:
    wanted = chosen(f'Bearer realm="{named}"', url=url, realm=realm)
    return str(wanted.realm) if isinstance(wanted, Bearer) else None


@pytest.mark.parametrize(
    ("url", "realm", "shown"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io.evil.example/token", False),
        ("https://registry-1.docker.io", "https://auth.docker.io:8443/token", False),
        ("https://registry-1.docker.io", "http://auth.docker.io/token", False),
        ("https://ghcr.io", "https://ghcr.io/token", True),
        ("https://ghcr.io", "http://ghcr.io/token", False),
        ("https://ghcr.io", "https://auth.docker.io/token", False),
        ("https://quay.io", "https://quay.io:8443/v2/auth", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://r.example", "https://example/token", False),
        ("http://r.example:5000", "http://r.example:5001/token", True),
        ("http://r.example:5000", "https://r.example/token", True),
    ],
)
def test_f61_which_realms_may_see_the_login(url: str, realm: str, shown: bool) -> None:
    assert Demands(URL(url)).may_see_login(URL(realm)) == shown


def test_a_configured_realm_may_see_the_login_but_not_over_http() -> None:
    for realm, shown in [("https://auth.corp/token", True), ("http://auth.corp/token", False)]:
        demands = Demands(URL("https://r.corp"), URL(realm))
        assert demands.may_see_login(URL(realm)) == shown


@pytest.mark.parametrize(
    ("url", "realm", "says"),
    [
        ("https://r.corp:8443", "http://r.corp/service/token", "https://r.corp:8443/service/token"),
        ("https://r.corp", "http://auth.corp:81/token?x=y", "https://auth.corp/token"),
        ("https://r.corp", "https://auth.corp:444/token", "https://auth.corp:444/token"),
        ("http://r.corp", "http://auth.corp:444/token", "http://auth.corp:444/token"),
    ],
)
def test_what_is_to_be_written_for_a_realm_without_the_login_is_said(
    url: str, realm: str, says: str
) -> None:
    assert f"write realm: {says} if" in Demands(URL(url)).why_withheld(URL(realm))


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("https://auth.example/token", "https://auth.example/token"),
        ("https://auth.example/token?x=y&z=1", "https://auth.example/token?x=y&z=1"),
        ("HTTPS://Auth.Example/Token", "https://auth.example/Token"),
        ("  https://auth.example/token ", "https://auth.example/token"),
        ("https://auth.example/to ken", "https://auth.example/to%20ken"),
        ("http://ghcr.io/token", "http://ghcr.io/token"),
        ("/service/token?x=y", "https://ghcr.io/service/token?x=y"),
        ("https://me:secret@auth.example/token#x", "https://auth.example/token"),
        ("https://auth.example", "https://auth.example"),
        ("file:///etc/passwd", None),
        ("", None),
        ("token", None),
        ("//ghcr.io/token", None),
        ("https:///token", None),
        ("https://[::1/token", None),
        ("https://auth.example:99999/", None),
        ("https://auth.example/" + "x" * 4000, "https://auth.example/" + "x" * 4000),
    ],
)
def test_realms_as_registries_write_them(named: str, asked: str | None) -> None:
    found = realm_of(named)
    assert found is None if asked is None else URL(found or "") == URL(asked)


def test_a_configured_realm_is_asked_whatever_the_challenge_says() -> None:
    for named in ("http://r.corp/a?x=y", "https://internal:8080/b", "nonsense", ""):
        assert realm_of(named, realm="https://auth.corp/token") == "https://auth.corp/token"
    named = "http://r.corp/token?x=y"
    assert realm_of(named, realm="https://auth.corp/token") == "https://auth.corp/token?x=y"


def test_a_configured_realm_without_a_path_says_which_host_is_asked() -> None:
    for named in ("http://r.corp/service/token?x=y", "/service/token?x=y"):
        found = realm_of(named, realm="https://auth.corp:8443")
        assert found == "https://auth.corp:8443/service/token?x=y"
    assert realm_of("nonsense", realm="https://auth.corp:8443") is None


def test_docker_hubs_own_realm_is_not_replaced_by_that_of_another_endpoint() -> None:
    hub = "https://registry-1.docker.io"
    for named, asked in [
        ("https://auth.docker.io/token", "https://auth.docker.io/token"),
        ("http://auth.docker.io/token", "https://auth.corp/token"),
        ("https://elsewhere.example/token", "https://auth.corp/token"),
    ]:
        assert realm_of(named, url=hub, realm="https://auth.corp/token") == asked


OWN = 'Bearer realm="https://ghcr.io/token",service="s"'
OTHER = 'Bearer realm="https://other.example/token"'
BASIC = 'Basic realm="registry", charset="UTF-8"'


@pytest.mark.parametrize(
    ("lines", "anonymous", "with_login"),
    [
        ((OWN,), "https://ghcr.io/token", "https://ghcr.io/token"),
        ((BASIC,), "basic", "basic"),
        ((BASIC, OWN), "https://ghcr.io/token", "https://ghcr.io/token"),
        ((f"{BASIC}, {OWN}",), "https://ghcr.io/token", "https://ghcr.io/token"),
        ((OWN, BASIC), "https://ghcr.io/token", "https://ghcr.io/token"),
        # With a login, more can be read by what may see it.
        ((OTHER, OWN), "https://other.example/token", "https://ghcr.io/token"),
        ((OTHER, BASIC), "https://other.example/token", "basic"),
        ((OTHER,), "https://other.example/token", "https://other.example/token"),
        # What cannot be answered is passed over.
        (("Bearer", BASIC), "basic", "basic"),
        (('Bearer realm=""', OWN), "https://ghcr.io/token", "https://ghcr.io/token"),
        (("Negotiate", "Digest realm=x", "Bearer service=x"), "", ""),
        (("BEARER Realm=https-unquoted",), "", ""),
        ((), "", ""),
    ],
)
def test_which_of_several_challenges_is_answered(
    lines: tuple[str, ...], anonymous: str, with_login: str
) -> None:
    for login, expected in ((False, anonymous), (True, with_login)):
        wanted = chosen(*lines, login=login)
        found = str(wanted.realm) if isinstance(wanted, Bearer) else "basic" if wanted else ""
        assert found == expected
        assert isinstance(wanted, Basic) == (expected == "basic")


def test_the_rest_of_a_challenge_is_taken_as_it_is() -> None:
    wanted = chosen('bearer realm="https://ghcr.io/t",scope="a:b:pull c", error=insufficient_scope')
    assert wanted == Bearer(URL("https://ghcr.io/t"), "", "a:b:pull c")
