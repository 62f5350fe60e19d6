"""docker-registry with `auth: token` behind nginx, where TLS ends: its challenge names a realm over
http, as it does in many companies."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from .certificates import issue
from .hub import Origin, serve_registry
from .images import OCI, build_thin
from .mirror import Mirror, endpoint
from .nginx import serve_tls
from .programs import Programs, needs, run

PUBLIC, PRIVATE = "public/app", "private/app"
USER, PASSWORD = "mirror", "correct-horse"
HTPASSWD = "mirror:$2b$04$MjmAN21EMfUtisuvju0DNuTv8NTqJxWmNHEXFf60qyNkL442g6cua\n"
SHOWN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Gives tokens that docker-registry takes, signed with the key of `pem`: of what is private to
    the one user alone. `shown` are the Authorization headers that came, or ""."""

    def __init__(self, pem: bytes) -> None:
        self._key = serialization.load_pem_private_key(pem, None)
        der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        self._chain = [base64.b64encode(der).decode()]
        self.shown: list[str] = []
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("Authorization", "")
                tokens.shown.append(shown)
                asked = parse_qs(urlsplit(self.path).query)
                body = json.dumps(tokens.answer(shown, asked.get("scope", []))).encode()
                self.send_response(200 if shown in ("", SHOWN) else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> TokenServer:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *left: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, shown: str, scopes: list[str]) -> dict[str, Any]:
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            may = shown == SHOWN or name == PUBLIC
            access.append(
                {"type": kind, "name": name, "actions": actions.split(",") if may else []}
            )
        claims = {
            "iss": "tests",
            "sub": "",
            "aud": "registry",
            "iat": now,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        return {"token": self._signed(claims), "expires_in": 300}

    def _signed(self, claims: dict[str, Any]) -> str:
        head = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        signature = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(signature))
        return f"{text}.{_encoded(numbers)}"


@dataclass
class Company:
    """The registry as it is reached, and what stands behind."""

    url: str
    authority: Path
    tokens: TokenServer
    secret: Path
    realm: str = field(init=False)

    def __post_init__(self) -> None:
        self.realm = f"{self.url}/auth/token"

    def configured(self, **keys: Any) -> dict[str, Any]:
        return endpoint(self.url, ca_file=str(self.authority), **keys)

    @property
    def login(self) -> dict[str, str]:
        return {"username": USER, "password_file": str(self.secret)}


@pytest.fixture(scope="module")
def company() -> Iterator[Company]:
    needs("docker-registry", "nginx", "skopeo")
    with Programs() as programs:
        folder = programs.folder / "signer"
        folder.mkdir()
        signer = issue(folder, ("tokens",))
        with TokenServer(signer.server.read_bytes()) as tokens:
            origin = Origin(programs)
            for repository in (PUBLIC, PRIVATE):
                origin.push(build_thin(repository, OCI), repository)
            guarded = serve_registry(
                programs,
                "guarded",
                origin.storage,
                auth={
                    "token": {
                        "realm": tokens.url,
                        "service": "registry",
                        "issuer": "tests",
                        "rootcertbundle": str(signer.authority),
                    }
                },
            )
            rules = f"location /auth/token {{ proxy_pass {tokens.url}; }}"
            url, authority = serve_tls(programs, "front", guarded, rules)
            secret = programs.folder / "password"
            secret.write_text(f"{PASSWORD}\n")
            yield Company(url, authority, tokens, secret)


@pytest.fixture
def mirror_of(company: Company) -> Iterator[Callable[..., Mirror]]:
    company.tokens.shown.clear()
    with Programs() as programs:
        yield lambda **keys: Mirror(programs, company.configured(**keys)).start()


def pull(mirror: Mirror, repository: str, folder: Path) -> None:
    image = f"docker://{mirror.address}:{mirror.port}/{repository}:latest"
    copy = f"dir:{folder / repository.replace('/', '-')}"
    run("skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", image, copy)


def test_without_a_login_the_realm_over_http_is_asked(
    company: Company, mirror_of: Callable[..., Mirror], tmp_path: Path
) -> None:
    pull(mirror_of(), PUBLIC, tmp_path)
    assert set(company.tokens.shown) == {""}


def test_a_login_does_not_go_to_it_and_what_to_write_is_said(
    company: Company, mirror_of: Callable[..., Mirror], tmp_path: Path
) -> None:
    mirror = mirror_of(credentials=company.login)
    pull(mirror, PUBLIC, tmp_path)
    status, body = mirror.get(f"/v2/{PRIVATE}/manifests/latest")
    assert status == 403
    assert set(company.tokens.shown) == {""}
    assert "login_withheld" in mirror.words()
    assert "write realm: https://" in mirror.words()
    assert b"write realm: https://" in body


def test_the_configured_realm_is_asked_in_its_place_with_the_login(
    company: Company, mirror_of: Callable[..., Mirror], tmp_path: Path
) -> None:
    mirror = mirror_of(credentials=company.login, realm=company.realm)
    pull(mirror, PRIVATE, tmp_path)
    pull(mirror, PUBLIC, tmp_path)
    assert set(company.tokens.shown) == {SHOWN}
    assert PASSWORD not in mirror.words()


def test_what_nginx_hides_from_those_without_a_login_is_pulled_with_it(tmp_path: Path) -> None:
    """As GitHub and GitLab do: strangers are told that there is no such thing; /v2/ challenges."""
    needs("docker-registry", "nginx", "skopeo")
    with Programs() as programs:
        origin = Origin(programs)
        origin.push(build_thin(PRIVATE, OCI), PRIVATE)
        users, secret = programs.folder / "htpasswd", programs.folder / "password"
        users.write_text(HTPASSWD)
        secret.write_text(f"{PASSWORD}\n")
        auth = {"htpasswd": {"realm": "corp", "path": str(users)}}
        guarded = serve_registry(programs, "guarded", origin.storage, auth=auth)
        rules = (
            'location ~ ^/v2/. { if ($http_authorization = "") { return 404; } '
            f"proxy_pass {guarded}; proxy_set_header Host $http_host; }}"
        )
        url, authority = serve_tls(programs, "front", guarded, rules)
        login = {"username": USER, "password_file": str(secret)}
        mirror = Mirror(programs, endpoint(url, ca_file=str(authority), credentials=login)).start()
        pull(mirror, PRIVATE, tmp_path)
        assert mirror.get("/v2/none/app/manifests/latest")[0] == 404
