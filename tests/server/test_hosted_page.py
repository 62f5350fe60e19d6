"""The page of hosted names, as browsers and strangers ask for it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientResponse, ClientSession, DummyCookieJar, encode_basic_auth

from mirror.contracts.hosted import RetentionRule, Visibility
from mirror.contracts.identity import Right, Role
from mirror.oci.errors import Unavailable
from mirror.server.hosted.page.sessions import LIFE, MOST

from .hosted_port import HostedPort, password_of

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


@dataclass
class Browser:
    """Keeps its cookie, and shows it; `secure`: a proxy before the page speaks TLS."""

    session: ClientSession
    base: str
    cookie: str = ""
    host: str = ""
    proof: str = ""
    last: dict[str, str] = field(default_factory=dict)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if self.host:
            headers["Host"] = self.host
        return {**headers, **more}

    async def get(self, path: str, **headers: str) -> tuple[ClientResponse, str]:
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, **form: str) -> tuple[ClientResponse, str]:
        return await self._ask("POST", path, {"proof": self.proof, **form}, {})

    async def _ask(
        self, method: str, path: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> tuple[ClientResponse, str]:
        async with self.session.request(
            method,
            self.base + path,
            data=form,
            headers=self._headers(headers),
            allow_redirects=False,
        ) as answer:
            text = await answer.text()
        if set_cookie := answer.headers.get("Set-Cookie"):
            self.last = {"cookie": set_cookie}
            value = set_cookie.partition(";")[0]
            self.cookie = "" if value.endswith('=""') or value.endswith("=") else value
        if found := re.search(r'name="proof" value="([0-9a-f]+)"', text):
            self.proof = found[1]
        return answer, text

    async def sign_in(self, name: str, password: str = "") -> Browser:
        await self.post("/login", name=name, password=password or password_of(name))
        await self.get("/")
        return self


@dataclass
class House:
    port: HostedPort
    session: ClientSession

    def browser(self, **more: str) -> Browser:
        return Browser(self.session, self.port.url, **more)

    async def as_(self, name: str) -> Browser:
        return await self.browser().sign_in(name)


@pytest_asyncio.fixture
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    port = await HostedPort(getattr(request, "param", "")).settle()
    server = port.server()
    await server.start_server()
    port.url = f"http://127.0.0.1:{server.port}"
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        yield House(port, session)
    await server.close()


# Signing in and out.


async def test_the_cookie_is_the_browsers_alone_and_of_this_site(house: House) -> None:
    browser = await house.as_("ada")
    words = browser.last["cookie"]
    assert re.match(r"registry=[\w-]{43};", words)
    for attribute in ("HttpOnly", "Path=/", "SameSite=Strict", f"Max-Age={LIFE}"):
        assert attribute in words
    assert "Secure" not in words
    assert "Domain" not in words


@pytest.mark.parametrize("house", ["https://registry.corp.lan"], indirect=True)
async def test_with_tls_the_cookie_is_secure_and_of_this_host_alone(house: House) -> None:
    """As behind a proxy that speaks TLS for it."""
    browser = await house.browser(host="registry.corp.lan").sign_in("ada")
    words = browser.last["cookie"]
    assert words.startswith("__Host-registry=")
    assert "Secure" in words
    _, page = await browser.get("/r/acme/app")
    assert "docker pull registry.corp.lan/acme/app:v1" in page
    plain = house.browser(host="registry.corp.lan")
    plain.cookie = browser.cookie.replace("__Host-", "")
    answer, _ = await plain.get("/r/acme/app")
    assert answer.status == 404


async def test_a_session_ends_with_its_time(house: House) -> None:
    browser = await house.as_("ada")
    house.port.clock.now += LIFE - 1
    assert (await browser.get("/r/acme/app"))[0].status == 200
    house.port.clock.now += 2
    assert (await browser.get("/r/acme/app"))[0].status == 404


async def test_signing_out_ends_the_session_also_for_who_has_kept_the_cookie(house: House) -> None:
    browser = await house.as_("ada")
    kept = browser.cookie
    answer, _ = await browser.post("/logout")
    assert answer.status == 303
    assert browser.cookie == ""
    browser.cookie = kept
    assert (await browser.get("/r/acme/app"))[0].status == 404


async def test_another_password_ends_all_sessions_but_the_one_that_set_it(house: House) -> None:
    here, elsewhere = await house.as_("ada"), await house.as_("ada")
    proof = here.proof
    answer, _ = await here.post(
        "/account/password",
        before=password_of("ada"),
        password="another-good-one",
        again="another-good-one",
    )
    assert answer.status == 303
    assert (await here.get("/r/acme/app"))[0].status == 200
    assert (await elsewhere.get("/r/acme/app"))[0].status == 404
    here.proof = proof  # of the session before
    assert (await here.post("/logout"))[0].status == 403


@pytest.mark.parametrize("how", ["disabled", "removed"])
async def test_a_session_ends_with_its_account(house: House, how: str) -> None:
    browser = await house.as_("ada")
    if how == "disabled":
        await house.port.identity.set_user("ada", disabled=True)
    else:
        await house.port.identity.remove_user("ada")
    assert (await browser.get("/r/acme/app"))[0].status == 404
    assert (await browser.get("/account"))[0].status == 401


async def test_the_oldest_of_too_many_sessions_ends(house: House) -> None:
    first = await house.as_("ada")
    others = await house.as_("wil")
    for _ in range(MOST):
        house.port.clock.now += 1
        await house.as_("ada")
    assert (await first.get("/account"))[0].status == 401
    assert (await others.get("/account"))[0].status == 200


async def test_who_guesses_passwords_is_told_to_wait(house: House) -> None:
    browser = house.browser()
    for _ in range(3):
        answer, page = await browser.post("/login", name="ada", password="wrong")
        assert answer.status == 403
        assert "none that are known here" in page
    answer, page = await browser.post("/login", name="ada", password=password_of("ada"))
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "8"
    assert "try again in 8 s" in page
    assert browser.cookie == ""


async def test_a_token_and_a_robot_do_not_sign_in(house: House) -> None:
    ada = await house.as_("ada")
    _, page = await ada.post("/account/tokens", name="ci", right="push", expires="90")
    secret = re.search(r"<code>(rmt_[\w-]+)</code>", page)
    assert secret is not None
    await ada.get("/o/acme")
    _, page = await ada.post("/o/acme/robots", name="ci", right="push", repositories="*")
    robot = re.search(r"<code>(rmr_[\w-]+)</code>", page)
    assert robot is not None
    for name, password in (("ada", secret[1]), ("acme+ci", robot[1])):
        browser = house.browser()
        answer, _ = await browser.post("/login", name=name, password=password)
        assert answer.status == 403
        assert browser.cookie == ""


@pytest.mark.parametrize(
    ("given", "led"),
    [
        ("/r/acme/app", "/r/acme/app"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
    ],
)
async def test_signing_in_leads_nowhere_else(house: House, given: str, led: str) -> None:
    browser = house.browser()
    answer, _ = await browser.post("/login", name="ada", password=password_of("ada"), next=given)
    assert answer.headers["Location"] == led


# Who changes something.

CHANGES = {
    "/logout": {},
    "/new": {"namespace": "acme", "name": "x", "visibility": "public"},
    "/r/acme/app/-/tags/v1/delete": {},
    "/r/acme/app/-/settings": {"visibility": "public"},
    "/r/acme/app/-/retention": {"match-0": "*", "keep-0": "1"},
    "/r/acme/app/-/retention/apply": {},
    "/r/acme/app/-/delete": {"typed": "acme/app"},
    "/o/acme/members": {"user": "bo", "role": "maintainer"},
    "/o/acme/members/wil/remove": {},
    "/o/acme/robots": {"name": "ci", "right": "push", "repositories": "*"},
    "/o/acme/quota": {"quota": "1"},
    "/webhooks/acme": {"url": "https://x.example/", "subjects": "push"},
    "/account/password": {"before": "x", "password": "y", "again": "y"},
    "/account/tokens": {"name": "x", "right": "push"},
    "/users": {"name": "eve", "password": "eve-has-this-password"},
    "/users/ada": {"administrator": "yes"},
    "/organisations": {"name": "evil"},
}


@pytest.mark.parametrize("path", sorted(CHANGES))
async def test_nothing_is_changed_by_a_form_that_is_not_the_sessions_own(
    house: House, path: str
) -> None:
    ada, root = await house.as_("ada"), await house.as_("root")
    for proof in ("", ada.proof, "0" * 64):
        root.proof = proof
        answer, _ = await root.post(path, **CHANGES[path])
        assert answer.status == 403
    stranger = house.browser(proof=ada.proof)
    assert (await stranger.post(path, **CHANGES[path]))[0].status == 403
    assert house.port.audit.told == []


async def test_pages_of_other_sites_change_nothing(house: House) -> None:
    ada = await house.as_("ada")
    form = {"proof": ada.proof}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer, _ = await ada._ask("POST", "/r/acme/app/-/tags/v1/delete", form, headers)
        assert answer.status == 403
        answer, _ = await ada._ask(
            "POST", "/login", {"name": "ada", "password": password_of("ada")}, headers
        )
        assert answer.status == 403


@pytest.mark.parametrize("who", ["rita", "wil", "bo", None])
async def test_who_may_not_sees_no_way_and_is_refused_when_forcing_it(
    house: House, who: str | None
) -> None:
    browser = await house.as_(who) if who else house.browser()
    answer, page = await browser.get("/r/acme/site")
    assert answer.status == 200
    assert "delete" not in page
    assert "settings" not in page
    digest = str(house.port.records.there["acme/app"].tags["v1"].digest)
    paths = {
        **{path: form for path, form in CHANGES.items() if path.startswith(("/r/", "/o/"))},
        f"/r/acme/app/-/manifests/{digest}/delete": {},
        "/webhooks/acme": {"url": "https://x.example/", "subjects": "push"},
        "/users": {"name": "eve", "password": "eve-has-this-password"},
        "/users/ada": {"administrator": "yes"},
        "/organisations": {"name": "evil"},
    }
    before = repr((house.port.records.there, vars(house.port.identity), vars(house.port.webhooks)))
    for path, form in paths.items():
        answer, _ = await browser.post(path, **form)
        hidden = who == "bo" and path.startswith(("/r/", "/o/acme/m", "/o/acme/r", "/webhooks/"))
        assert answer.status == (404 if hidden else 403), path
    after = repr((house.port.records.there, vars(house.port.identity), vars(house.port.webhooks)))
    assert after == before


async def test_one_organisation_sees_nothing_of_another(house: House) -> None:
    ada = await house.as_("ada")
    digest = house.port.records.there["other/secret"].tags["nightly"].digest
    for path in (
        "/r/other/secret",
        "/r/other/secret/-/tags/nightly",
        f"/r/other/secret/-/manifests/{digest}",
        f"/r/acme/app/-/manifests/{digest}",
        "/r/other/secret/-/settings",
        "/r/other/secret/-/retention",
        "/r/other/secret/-/delete",
        "/r/other/secret/-/tags/nightly/delete",
        "/o/other",
        "/webhooks/other",
        "/users/bo",
    ):
        answer, page = await ada.get(path)
        assert answer.status == 404, path
        missing = path.replace("secret", "nosuch").replace("bo", "nosuch")
        other, _ = await ada.get(missing.replace("other", "nosuch"))
        assert other.status == answer.status
        assert "nightly" not in page.replace(path, ""), path
    for path in ("/", "/?q=secret", "/?q=other", "/organisations", "/?after=acme/zzz"):
        _, page = await ada.get(path)
        assert "other/secret" not in page
        assert "/o/other" not in page
    for path in ("/users", "/audit", "/audit?target=other", "/webhooks/-"):
        answer, _ = await ada.get(path)
        assert answer.status == 403, path


# What is shown.


async def test_the_anonymous_see_public_repositories_alone(house: House) -> None:
    browser = house.browser()
    answer, page = await browser.get("/")
    assert answer.status == 200
    assert "acme/site" in page
    assert "acme/app" not in page
    assert (await browser.get("/r/acme/site/-/tags/latest"))[0].status == 200
    answer, page = await browser.get("/r/acme/app")
    assert answer.status == 404
    assert "/login?next=/r/acme/app" in page


async def test_a_repository_shows_its_tags_and_how_they_are_pulled(house: House) -> None:
    await house.port.records.change("acme/app", immutable=["v*"], description="the app")
    browser = await house.as_("rita")
    _, page = await browser.get("/r/acme/app")
    host = house.port.url.removeprefix("http://")
    for words in (f"docker pull {host}/acme/app:v1", "linux/amd64", "the app", "by wil"):
        assert words in page
    assert page.count("immutable") == 2
    _, page = await browser.get("/r/acme/app/-/tags/v2")
    digest = house.port.records.there["acme/app"].tags["v2"].digest
    for words in (
        f"docker pull {host}/acme/app@{digest}",
        "image.layer.v1.tar+gzip",
        "/bin/acme/app",
    ):
        assert words in page


async def test_what_refers_to_an_image_is_shown_with_it(house: House) -> None:
    port = house.port
    subject = port.records.there["acme/app"].tags["v1"].digest
    sbom = await port.push("acme/app", artifact_type="application/spdx+json", subject=subject)
    _, page = await (await house.as_("rita")).get("/r/acme/app/-/tags/v1")
    assert "SBOM" in page
    assert f"/r/acme/app/-/manifests/{sbom}" in page


async def test_where_a_tag_has_pointed_is_shown(house: House) -> None:
    digest = house.port.records.there["acme/app"].tags["v1"].digest
    house.port.clock.now += 60
    await house.port.push("acme/app", "v1", "v3", by="ada")
    _, page = await (await house.as_("rita")).get("/r/acme/app/-/tags/v1")
    history = page.partition("Where this tag has pointed")[2]
    assert str(digest) in history
    assert "by ada" in history


async def test_repositories_and_tags_come_in_pages(house: House) -> None:
    for each in range(60):
        await house.port.push(f"acme/many{each:02}", "v1")
    await house.port.push("acme/tags", *(f"t{each:02}" for each in range(70)))
    browser = await house.as_("ada")
    _, page = await browser.get("/?q=many")
    assert "acme/many49" in page
    assert "acme/many50" not in page
    following = re.search(r'href="(/\?q=many&amp;after=[^"]+)"', page)
    assert following is not None
    _, page = await browser.get(following[1].replace("&amp;", "&"))
    assert "acme/many59" in page
    assert "acme/many49" not in page
    _, page = await browser.get("/r/acme/tags?after=t49")
    assert ">t50<" in page
    assert ">t49<" not in page


async def test_strangers_words_are_text(house: House) -> None:
    port = house.port
    await port.records.change("acme/site", description=HOSTILE)
    await port.push(
        "acme/site",
        "evil",
        by=HOSTILE,
        annotations={HOSTILE: HOSTILE},
        artifact_type=HOSTILE,
    )
    browser = house.browser()
    for path in (
        "/",
        "/r/acme/site",
        "/r/acme/site/-/tags/evil",
        "/?q=%3Cscript%3E",
        "/login?next=%22%3E%3Cscript%3E",
        "/%3Cscript%3E",
        "/r/acme/site?done=%3Cscript%3E",
    ):
        _, page = await browser.get(path)
        assert "<script>" not in page
        assert "<img" not in page
        assert "49" not in page.partition("<main")[2].partition("alert(1)")[0]
    _, page = await browser.post("/login", name=HOSTILE, password="x")
    assert "<script>" not in page


async def test_every_answer_has_what_browsers_are_to_keep_to(house: House) -> None:
    browser = await house.as_("root")
    for path in ("/", "/login", "/nothing", "/static/page.css", "/api/v1/myself", "/users"):
        answer, page = await browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        if path != "/static/page.css":
            assert answer.headers["Cache-Control"] == "no-store"
            assert not re.search(r"<script(?! src=)|<style|\son\w+=|style=", page)


@pytest.mark.parametrize(
    "path", ["//", "/r/", "/r/../x", "/r/acme/app/-/", "/r/A", "/%00", "/%ff", "/o/", "/x?%zz=%"]
)
async def test_what_is_no_page_is_404(house: House, path: str) -> None:
    browser = await house.as_("root")
    assert (await browser.get(path))[0].status in (400, 404)


async def test_who_is_not_signed_in_is_not_told_of_an_account(house: House) -> None:
    answer, page = await house.browser().get("/account")
    assert answer.status == 401
    assert "/login?next=/account" in page


# What is done.


async def test_a_tag_is_deleted_once_that_is_confirmed(house: House) -> None:
    ada = await house.as_("ada")
    _, page = await ada.get("/r/acme/app/-/tags/v1/delete")
    assert "Delete the tag v1?" in page
    assert "v1" in house.port.records.there["acme/app"].tags
    answer, _ = await ada.post("/r/acme/app/-/tags/v1/delete")
    assert answer.headers["Location"] == "/r/acme/app?done=deleted"
    assert set(house.port.records.there["acme/app"].tags) == {"v2"}


async def test_a_repository_goes_when_its_name_is_written(house: House) -> None:
    ada = await house.as_("ada")
    _, page = await ada.post("/r/acme/app/-/delete", typed="acme/ap")
    assert "say that it is meant" in page
    assert "acme/app" in house.port.records.there
    await ada.post("/r/acme/app/-/delete", typed="acme/app")
    assert "acme/app" not in house.port.records.there


async def test_settings_are_saved_and_mistakes_named_where_they_were_made(house: House) -> None:
    ada = await house.as_("ada")
    answer, _ = await ada.post(
        "/r/acme/app/-/settings",
        visibility="public",
        description="words",
        immutable="v*\nrelease-*",
    )
    assert answer.status == 303
    record = house.port.records.there["acme/app"].record
    assert record.visibility is Visibility.PUBLIC
    assert record.immutable == ("v*", "release-*")
    form = {"match-0": "v*", "keep-0": "10", "younger-0": "30", "match-1": "*", "untagged-1": "7"}
    answer, _ = await ada.post("/r/acme/app/-/retention", **form)
    assert answer.headers["Location"] == "/r/acme/app/-/retention?done=saved"
    assert house.port.records.there["acme/app"].record.retention == (
        RetentionRule(("v*",), 10, 30 * 86400.0),
        RetentionRule(("*",), untagged=7 * 86400.0),
    )
    _, page = await ada.get("/r/acme/app/-/retention")
    assert "Take 1 tags" in page
    for wrong in ({"match-0": "v*", "keep-0": "ten"}, {"keep-0": "3"}, {"younger-0": "nan"}):
        answer, page = await ada.post("/r/acme/app/-/retention", **wrong)
        assert answer.status == 400
        assert 'role="alert"' in page
        assert "Settings" in page


async def test_a_robots_secret_is_shown_once(house: House) -> None:
    ada = await house.as_("ada")
    answer, page = await ada.post(
        "/o/acme/robots", name="ci", right="push", repositories="app, tools/*", expires="90"
    )
    assert answer.status == 200
    secret = re.search(r"<code>(rmr_[\w-]+)</code>", page)
    assert secret is not None
    assert "acme+ci" in page
    _, page = await ada.get("/o/acme")
    assert "acme+ci" in page
    assert "push acme/tools/*" in page
    assert secret[1] not in page
    answer, page = await ada.post("/o/acme/robots", name="ci", right="push", repositories="app")
    assert answer.status == 409
    await ada.post("/o/acme/robots/ci/remove")
    assert await house.port.identity.robot("acme+ci") is None


async def test_members_are_made_and_taken_away(house: House) -> None:
    ada = await house.as_("ada")
    await ada.post("/o/acme/members", user="bo", role="reader")
    assert ("acme", Role.READER) in await house.port.identity.memberships("bo")
    await ada.post("/o/acme/members/bo/remove")
    assert await house.port.identity.memberships("bo") == [("other", Role.MAINTAINER)]
    answer, page = await ada.post("/o/acme/members", user="nobody", role="reader")
    assert answer.status == 404
    assert 'value="nobody"' in page


async def test_webhooks_have_a_log_and_deliver_again(house: House) -> None:
    ada = await house.as_("ada")
    _, page = await ada.post("/webhooks/acme", url="https://ci.example/hook", subjects="push")
    there = await house.port.webhooks.webhooks("acme")
    at = f"/webhooks/acme/{there[0].id}"
    assert at in page
    await ada.get(at)
    await ada.post(f"{at}/ping")
    _, page = await ada.get(at)
    assert "ping" in page
    [delivery] = await house.port.webhooks.deliveries(there[0].id)
    answer, _ = await ada.post(f"{at}/redeliver", delivery=delivery.id)
    assert answer.status == 303
    await ada.post(f"{at}/switch", disabled="yes")
    assert (await house.port.webhooks.webhooks("acme"))[0].is_disabled
    bo = await house.as_("bo")
    assert (await bo.get(at))[0].status == 404
    assert (await bo.get(at.replace("acme", "other")))[0].status == 404
    assert (await bo.post(at.replace("acme", "other") + "/ping"))[0].status == 404


async def test_administrators_manage_users_and_organisations(house: House) -> None:
    root = await house.as_("root")
    answer, _ = await root.post("/users", name="eve", password="eve-has-this-password")
    assert answer.headers["Location"] == "/users/eve?done=made"
    await root.post("/users/eve", administrator="yes", disabled="yes")
    eve = await house.port.identity.user("eve")
    assert eve is not None
    assert eve.is_administrator
    assert eve.is_disabled
    await root.post("/organisations", name="third", quota="1.5")
    third = await house.port.identity.organisation("third")
    assert third is not None
    assert third.quota == 3 * 2**29
    _, page = await root.get("/audit?target=eve")
    assert "user add" in page
    answer, page = await root.post("/users/root", disabled="yes")
    assert answer.status == 403


async def test_what_an_administrator_did_is_told_to_maintainers_of_the_organisation(
    house: House,
) -> None:
    root, ada = await house.as_("root"), await house.as_("ada")
    await root.post("/o/acme/quota", quota="5")
    _, page = await ada.get("/audit?target=acme")
    assert "root" in page


# The API.


def basic(name: str, password: str = "") -> str:
    return encode_basic_auth(name, password or password_of(name))


@dataclass
class Program:
    session: ClientSession
    base: str
    name: str = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer's status, and its JSON."""
        if self.name:
            headers = {**headers, "Authorization": basic(self.name)}
        async with self.session.request(
            method, f"{self.base}/api/v1{path}", json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None


def program(house: House, name: str = "") -> Program:
    return Program(house.session, house.port.url, name)


async def test_a_program_does_what_the_page_does(house: House) -> None:
    ada = program(house, "ada")
    status, found = await ada.ask("GET", "/repositories?n=1")
    assert (status, found["after"]) == (200, "acme/app")
    status, found = await ada.ask("GET", f"/repositories?last={found['after']}")
    assert [each["repository"]["name"] for each in found["repositories"]] == ["acme/site"]
    status, found = await ada.ask("GET", "/repositories/acme/app/-/tags")
    assert [each["name"] for each in found["tags"]] == ["v1", "v2"]
    status, found = await ada.ask("GET", "/repositories/acme/app/-/manifests/v1")
    assert status == 200
    assert len(found["layers"]) == 2
    digest = found["manifest"]["digest"]
    changes = {"visibility": "public", "retention": [{"match": ["v*"], "keep": 3}]}
    status, found = await ada.ask("PATCH", "/repositories/acme/app", changes)
    assert (status, found["repository"]["retention"][0]["keep"]) == (200, 3)
    robot = {"name": "ci", "right": "push", "repositories": ["app"], "expires_in": 3600}
    status, found = await ada.ask("POST", "/organisations/acme/robots", robot)
    assert (status, found["login"]) == (201, "acme+ci")
    assert found["secret"].startswith("rmr_")
    status, _ = await ada.ask("PUT", "/organisations/acme/members/bo", {"role": "reader"})
    assert status == 204
    assert (await ada.ask("DELETE", "/repositories/acme/app/-/tags/v1"))[0] == 204
    assert (await ada.ask("DELETE", f"/repositories/acme/app/-/manifests/{digest}"))[0] == 204
    assert (await ada.ask("DELETE", "/repositories/acme/app"))[0] == 204
    hook = {"namespace": "acme", "url": "https://ci.example/", "subjects": ["push"]}
    status, found = await ada.ask("POST", "/webhooks", hook)
    assert status == 201
    status, found = await ada.ask("GET", "/audit?target=acme")
    assert (status, found["entries"][0]["action"]) == (200, "webhook add")


async def test_every_operation_is_described(house: House) -> None:
    status, document = await program(house).ask("GET", "/openapi.json")
    assert status == 200
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) > 30
    for path, methods in document["paths"].items():
        for method in methods:
            filled = re.sub(r"\{(digest)\}", "sha256:" + "0" * 64, path)
            filled = re.sub(r"\{\w+\}", "nosuch", filled)
            status, _ = await program(house, "root").ask(method.upper(), filled, {})
            assert status not in (405, 500, 501), (method, path)


async def test_the_api_tells_one_organisation_nothing_of_another(house: House) -> None:
    ada = program(house, "ada")
    for method, path, body in (
        ("GET", "/repositories/other/secret", None),
        ("GET", "/repositories/other/secret/-/tags", None),
        ("GET", "/repositories/other/secret/-/manifests/nightly", None),
        ("PATCH", "/repositories/other/secret", {"visibility": "public"}),
        ("DELETE", "/repositories/other/secret", None),
        ("DELETE", "/repositories/other/secret/-/tags/nightly", None),
        ("GET", "/organisations/other", None),
        ("GET", "/organisations/other/members", None),
        ("GET", "/organisations/other/robots", None),
        ("PUT", "/organisations/other/members/ada", {"role": "maintainer"}),
        ("GET", "/users/bo", None),
        ("GET", "/users/bo/tokens", None),
        ("GET", "/webhooks?namespace=other", None),
    ):
        status, found = await ada.ask(method, path, body)
        assert status == 404, (method, path)
        other, twin = await ada.ask(method, path.replace("secret", "nosuch"), body)
        assert other == status
        assert twin["error"]["code"] == found["error"]["code"]
    _, found = await ada.ask("GET", "/repositories?q=secret")
    assert found["repositories"] == []


async def test_the_api_takes_no_cookie_and_no_page_of_another_site(house: House) -> None:
    browser = await house.as_("ada")
    answer, _ = await browser.get("/api/v1/repositories/acme/app")
    assert answer.status == 404
    ada = program(house, "ada")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        status, _ = await ada.ask("DELETE", "/repositories/acme/app", **headers)
        assert status == 403


async def test_the_api_wants_a_login_that_is_one(house: House) -> None:
    wrong = program(house, "ada")
    wrong.name = "nobody"
    async with house.session.get(
        f"{house.port.url}/api/v1/myself", headers={"Authorization": "Basic YWRhOng="}
    ) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    status, found = await program(house).ask(
        "GET", "/repositories/acme/app", Authorization="Bearer of-the-registry"
    )
    assert (status, found["error"]["code"]) == (403, "DENIED")


@pytest.mark.parametrize(
    "body",
    [
        "no json",
        "[]",
        '{"visibility": 3}',
        '{"visibility": "secret"}',
        '{"retention": [{"keep": NaN}]}',
        '{"retention": [{"keep": 1e400}]}',
        '{"retention": {}}',
        '{"unknown": 1}',
    ],
)
async def test_a_body_that_cannot_be_taken_is_400(house: House, body: str) -> None:
    async with house.session.patch(
        f"{house.port.url}/api/v1/repositories/acme/app",
        data=body,
        headers={"Content-Type": "application/json", "Authorization": basic("ada")},
    ) as answer:
        assert answer.status == 400


async def test_a_token_that_pulls_changes_nothing_by_the_api(house: House) -> None:
    made = await program(house, "ada").ask(
        "POST", "/users/ada/tokens", {"name": "ci", "right": Right.PULL.value}
    )
    async with house.session.delete(
        f"{house.port.url}/api/v1/repositories/acme/app",
        headers={"Authorization": basic("ada", made[1]["secret"])},
    ) as answer:
        assert answer.status == 403
    assert "acme/app" in house.port.records.there


async def test_records_that_are_away_are_told_as_such(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("the records cannot be reached")

    ada = await house.as_("ada")
    monkeypatch.setattr(house.port.records, "repository", away)
    answer, page = await ada.get("/r/acme/app")
    assert (answer.status, page) == (503, "the records cannot be reached\n")
    status, found = await program(house, "ada").ask("GET", "/repositories/acme/app")
    assert (status, found["error"]["message"]) == (503, "the records cannot be reached")
