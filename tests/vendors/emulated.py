"""The one server that behaves as a profile says: a registry, its token realm, its blobs' host."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from ..e2e.programs import loopback_address
from ..fakes.servers import Servers
from ..fakes.shelf import OCI_INDEX, Shelf, blob_answer
from .profile import Login, Profile, Referrers

LEGACY_REALM = "/legacy/token"  # gives nothing to anybody
PAGES = "/-/packages/"  # below it are pages for people
PRIVATE = "private/"  # what repositories begin with that are not for everybody
_NAMED = re.compile(
    r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<what>[^/]+)", re.ASCII
)
_TAGS_QUERY = frozenset(("n", "last", "next_page", "orderby"))
_SENT_IN_ANY_CASE = {"Docker-Distribution-Api-Version": "registry/2.0"}


class Emulated(Servers):
    """A registry of this profile, with what is on the shelf. Repositories that begin with
    `private/` are for the profile's login alone."""

    def __init__(self, profile: Profile, shelf: Shelf) -> None:
        super().__init__()
        self.profile = profile
        self.shelf = shelf
        self.login = profile.login
        self.url = ""
        self.page_status = 404  # of pages for people
        self.behind: Emulated | None = None  # what it redirects to
        self._realm_root = self._blobs_root = ""
        self._tokens: dict[str, frozenset[str]] = {}  # token: what it is good for
        self._expired: set[str] = set()
        self._logins: set[str] = set()  # tokens that the login was shown for
        self._signed: dict[str, str] = {}  # signature: method
        self._pages: dict[str, str] = {}  # opaque name of a page: the tag before it

    async def __aenter__(self) -> Self:
        profile = self.profile
        if profile.front_of is not None:
            self.behind = await Emulated(profile.front_of, self.shelf).__aenter__()
        self.url = await self.serve("registry", self._registry, loopback_address())
        self._realm_root = self.url
        if profile.realm is not None and profile.realm.elsewhere:
            self._realm_root = await self.serve("realm", self._token, loopback_address())
        self._blobs_root = await self.serve("blobs", self._blob_host, loopback_address())
        return self

    async def __aexit__(self, *left: Any) -> None:
        if self.behind is not None:
            await self.behind.__aexit__(*left)
        await super().__aexit__(*left)

    # What a test does to it

    def expire_tokens(self) -> None:
        """No token given so far is good any more."""
        self._expired |= self._tokens.keys()
        if self.behind is not None:
            self.behind.expire_tokens()

    def configured(self, folder: Path, login: Login | None) -> dict[str, Any]:
        """What to write below `registries` of mirror.yaml; the login's secret goes into a file."""
        profile = self.profile
        url = self.url + profile.path + (f"/{profile.project}" if profile.project else "")
        keys: dict[str, Any] = {"endpoints": [{"url": url}], **profile.keys}
        if profile.realm is not None and profile.realm.elsewhere:
            keys["realm"] = self._realm_root + profile.realm.path
        if login is not None:
            file = folder / f"{profile.name}.secret"
            file.write_text(login.secret + "\n")
            keys["credentials"] = {login.kind: str(file)}
            if login.kind == "password_file":
                keys["credentials"]["username"] = login.username
        return keys

    # The registry

    async def _registry(self, request: web.Request) -> web.StreamResponse:
        profile = self.profile
        if self.behind is not None:
            root = self.behind.url + self.behind.profile.path
            place = self._in_project(request.path_qs, self.behind.profile)
            return web.Response(status=307, headers={"Location": root + place})
        if profile.realm is not None and request.path == profile.realm.path:
            return await self._token(request)
        if request.path == LEGACY_REALM:
            return self._error(401, "UNAUTHORIZED")
        if profile.storage.path and request.path.startswith(profile.storage.path):
            return await self._blob_host(request)
        answer = self._answer(request)
        answer.headers.update(_SENT_IN_ANY_CASE)
        answer.headers.update(profile.headers)
        return answer

    @staticmethod
    def _in_project(path: str, profile: Profile) -> str:
        if path == "/v2/" or not profile.project:
            return path
        return path.replace("/v2/", f"/v2/{profile.project}/", 1)

    def _answer(self, request: web.Request) -> web.Response:
        profile = self.profile
        if not request.path.startswith(f"{profile.path}/v2/"):
            return web.Response(status=404, text="<html>no such page</html>")
        path = request.path.removeprefix(profile.path)
        if path == "/v2/":
            known = self._knows(request)
            if known == "wrong" or (known == "" and profile.challenge.ping is not None):
                return self._challenged(profile.challenge.ping or "", "", known)
            return web.json_response({})
        match = _NAMED.fullmatch(path)
        if match is None:
            return self._error(404, "NOT_FOUND")
        name, kind, what = match["name"], match["kind"], match["what"]
        refusal = self._refusal(request, name, kind)
        if refusal is not None:
            return refusal
        own = name.removeprefix(f"{profile.project}/") if profile.project else name
        if (profile.project and own == name) or own not in self.shelf.tags:
            return self._error(404, "NAME_UNKNOWN")
        if kind == "blobs":
            return self._blob(request, what)
        if kind == "tags":
            return self._tag_list(request, name, own)
        if kind == "referrers":
            if profile.referrers is Referrers.PAGE:
                page = f"{self._blobs_root}{PAGES}{what.partition(':')[0]}"
                return web.Response(status=303, headers={"Location": page})
            return self._referrers(what)
        return self._manifest(request, own, what)

    def _knows(self, request: web.Request) -> str:
        """What the request shows: "" for nothing, else a token, `login`, or `wrong`."""
        scheme, _, word = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return ""
        if scheme == "Bearer" and word in self._tokens and word not in self._expired:
            return word
        if scheme == "Basic" and self.profile.realm is None and self._is_login(word):
            return "login"
        return "wrong"

    def _is_login(self, word: str) -> bool:
        username, _, password = base64.b64decode(word).decode().partition(":")
        login = self.login
        if login is None or login.kind != "password_file" or password != login.secret:
            return False
        realm = self.profile.realm
        return username == login.username or (realm is not None and realm.echoes)

    def _refusal(self, request: web.Request, name: str, kind: str) -> web.Response | None:
        """The refusal of what the request may not read."""
        profile = self.profile
        known = self._knows(request)
        challenge = profile.challenge
        wanted = (challenge.tags if kind == "tags" else "") or challenge.repository
        own = name.removeprefix(f"{profile.project}/")
        is_private = own.startswith(PRIVATE)
        if known == "wrong":
            return self._challenged(challenge.expired or wanted, name, known)
        if known == "":
            if profile.is_open and not is_private:
                return None
            if is_private and profile.stranger != 401:
                return self._error(profile.stranger, "NAME_UNKNOWN")
            return self._challenged(wanted, name, known)
        if known == "login":
            return None
        action = challenge.tags_action if kind == "tags" else "pull"
        realm = profile.realm
        assert realm is not None
        good = not realm.scoped or f"repository:{name}:{action}" in self._tokens[known]
        if not good or (is_private and known not in self._logins):
            return self._challenged(wanted, name, known)
        return None

    def _challenged(self, wanted: str, name: str, known: str) -> web.Response:
        profile = self.profile
        wanted = wanted or profile.challenge.repository.partition(",scope=")[0]
        status = profile.refused if known == "wrong" and profile.realm is None else 401
        answer = self._error(status, "UNAUTHORIZED" if status == 401 else "DENIED")
        if status == 401:
            answer.headers["WWW-Authenticate"] = wanted.format(**self._words(name))
        return answer

    def _words(self, name: str) -> Mapping[str, str]:
        realm = self.profile.realm
        return {
            "host": self.url.partition("://")[2],
            "root": self.url,
            "realm": self._realm_root + realm.path if realm else "",
            "name": name,
        }

    def _error(self, status: int, code: str) -> web.Response:
        document = json.dumps({"errors": [{"code": code, "message": code.lower()}]})
        if self.profile.error_type == "text/html":
            document = f"<html><h1>{status}</h1></html>"
        return web.Response(
            status=status, text=document, content_type=self.profile.error_type.partition(";")[0]
        )

    def _manifest(self, request: web.Request, name: str, reference: str) -> web.Response:
        how = self.profile.manifests
        digest = self.shelf.tags[name].get(reference, reference)
        if self.profile.referrers is Referrers.NOWHERE:
            digest = digest.replace("sha256-", "sha256:")
        if digest not in self.shelf.manifests:
            return self._error(404, "MANIFEST_UNKNOWN")
        data, media_type = self.shelf.manifests[digest]
        accepted = ",".join(request.headers.getall("Accept", []))
        if how.strict_accept and media_type not in accepted and "*/*" not in accepted:
            return self._error(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": media_type}
        is_get = request.method == "GET"
        if not is_get and how.head != 200:
            return self._error(how.head, "MANIFEST_UNKNOWN")
        if not is_get and how.head_type:
            headers["Content-Type"] = how.head_type
        if is_get or how.head_digest:
            headers["Docker-Content-Digest"] = digest
        return web.Response(body=data, headers=headers)

    def _referrers(self, digest: str) -> web.Response:
        if self.profile.referrers is not Referrers.API:
            return self._error(404, "NOT_FOUND")
        found = [
            {
                "mediaType": media_type,
                "digest": each,
                "size": len(data),
                "artifactType": json.loads(data).get("artifactType", ""),
            }
            for each, (data, media_type) in self.shelf.manifests.items()
            if json.loads(data).get("subject", {}).get("digest") == digest
        ]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        return web.Response(body=json.dumps(index).encode(), headers={"Content-Type": OCI_INDEX})

    def _tag_list(self, request: web.Request, name: str, own: str) -> web.Response:
        how = self.profile.tags
        if not how.is_open:
            return self._error(404, "NOT_FOUND")
        if not request.query.keys() <= _TAGS_QUERY:
            return self._error(400, "UNSUPPORTED")
        tags = list(self.shelf.tags[own])
        if how.is_sorted:
            tags.sort()
        asked = int(request.query.get("n", how.page) or len(tags))
        if how.most and asked > how.most:
            if how.beyond:
                return self._error(how.beyond, "UNSUPPORTED")
            asked = how.most
        last = request.query.get("last", "")
        if "{page}" in how.link:  # opaque: `last` means nothing to it
            last = self._pages.get(request.query.get("next_page", ""), "")
        start = tags.index(last) + 1 if last in tags else 0
        if "{end}" in how.link and last.isdigit():
            start = int(last)
        page = tags[start : start + asked]
        headers = {}
        if start + asked < len(tags):
            opaque = secrets.token_urlsafe(60) + "=="
            self._pages[opaque] = page[-1]
            words = {
                "n": asked,
                "last": page[-1],
                "page": opaque.replace("=", "%3D"),
                "end": start + asked,
                "own": own,
            }
            headers["Link"] = how.link.format(**words, **self._words(name))
        body = json.dumps({"name": name, "tags": page, **how.more})
        return web.Response(text=body, content_type=how.content_type, headers=headers)

    # Blobs

    def _blob(self, request: web.Request, digest: str) -> web.Response:
        how = self.profile.storage
        if digest not in self.shelf.blobs:
            return self._error(404, "BLOB_UNKNOWN")
        if not how.status or (request.method == "HEAD" and not how.head):
            return blob_answer(request, self.shelf.blobs[digest], digest)
        if not how.signature:
            return web.Response(
                status=how.status, headers={"Location": f"{self._blobs_root}/data/{digest}"}
            )
        signature = secrets.token_hex(how.signature // 2)
        self._signed[signature] = request.method
        place = f"{how.path or self._blobs_root}/data/{digest}?X-Signature={signature}%3D&se=1%2F2"
        return web.Response(status=how.status, headers={"Location": place})

    async def _blob_host(self, request: web.Request) -> web.StreamResponse:
        how = self.profile.storage
        if request.path.startswith(PAGES):
            page = "<html>Sign in</html>"
            return web.Response(status=self.page_status, text=page, content_type="text/html")
        if "Authorization" in request.headers and not how.path:
            return web.Response(status=how.refusal, text="<Code>InvalidArgument</Code>")
        digest = unquote(request.path.rpartition("/")[2])
        if not how.signature:
            return blob_answer(request, self.shelf.blobs[digest], digest)
        method = self._signed.get(request.query.get("X-Signature", "").removesuffix("="))
        is_encoded = request.rel_url.raw_query_string.endswith("%3D&se=1%2F2")
        if method is None or not is_encoded or (how.by_method and method != request.method):
            return web.Response(status=403, text="<Code>SignatureDoesNotMatch</Code>")
        return blob_answer(request, self.shelf.blobs[digest], digest)

    # The realm

    async def _token(self, request: web.Request) -> web.StreamResponse:
        realm = self.profile.realm
        assert realm is not None
        if request.method == "POST" and not realm.posts:
            return self._error(405, "UNSUPPORTED")
        form = {key: str(value) for key, value in (await request.post()).items()}
        asked = {**request.query, **form}
        accept = request.headers.get("Accept", "*/*")
        if not any(one in accept for one in ("*/*", "application/*", "application/json")):
            return web.Response(status=406)
        service = realm.service.format(**self._words(""))
        if service and asked.get("service") != service:
            return self._error(400, "UNSUPPORTED")
        shown = request.headers.get("Authorization", "")
        login = self.login
        if request.method == "POST":
            known = self._granted(form)
        else:
            known = shown.startswith("Basic ") and self._is_login(shown.removeprefix("Basic "))
        if (shown or request.method == "POST") and not known:
            return self._error(401, "UNAUTHORIZED")
        scopes = frozenset(asked.get("scope", "").split())
        if not known:
            private = any(PRIVATE in scope for scope in scopes)
            if not realm.anonymous or (private and realm.stranger != 200):
                return self._error(401 if not realm.anonymous else realm.stranger, "DENIED")
        token = secrets.token_urlsafe(300)
        if known and realm.echoes and login is not None:
            token = login.secret
        self._expired.discard(token)
        self._tokens[token] = scopes | self._tokens.get(token, frozenset())
        if known:
            self._logins.add(token)
        answer: dict[str, object] = dict.fromkeys(realm.fields, token)
        if realm.lifetime is not None:
            answer["expires_in"] = realm.lifetime
        return web.Response(text=json.dumps(answer), content_type=realm.content_type)

    def _granted(self, form: Mapping[str, str]) -> bool:
        """The grants of Docker's OAuth 2 token specification."""
        login = self.login
        if login is None:
            return False
        if login.kind == "identity_token_file":
            grant = {"grant_type": "refresh_token", "refresh_token": login.secret}
        else:
            grant = {
                "grant_type": "password",
                "username": login.username,
                "password": login.secret,
            }
        return grant.items() <= form.items()
