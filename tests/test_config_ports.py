"""The keys `listen` and `tls`: one address or several, and what is shown at them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mirror import config
from mirror.config import ConfigError

IPV4, IPV6 = IPv4Address("192.0.2.7"), IPv6Address("2001:db8::7")


def parse(text: str) -> config.Config:
    return config.parse(text, "mirror.yaml")


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    return [str(problem) for problem in raised.value.problems]


def write_pair(folder: Path, *, names: bool = True, days: int = 30, at: str = "m") -> str:
    """A certificate and its key, in files of their own, as the section `tls` names them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror.lan")])
    now = datetime.now(UTC)
    begin = now + timedelta(days=min(days, 0) - 1)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), begin,
        now + timedelta(days=days),
    )  # fmt: skip
    if names:
        found = [x509.DNSName("mirror.lan"), x509.IPAddress(IPV4), x509.IPAddress(IPV6)]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    made = builder.sign(key, hashes.SHA256())
    (folder / f"{at}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{at}-key.pem").write_bytes(private)
    return f"tls: {{cert: '{folder}/{at}.pem', key: '{folder}/{at}-key.pem'}}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [("127.0.0.1:5000", True)]),
        ("listen: ':5000'", [(":5000", True)]),
        ("listen: [':5000', '[::1]:5002']", [(":5000", True), ("[::1]:5002", True)]),
        (
            "listen: [':443', {address: '127.0.0.1:80', tls: false}]",
            [(":443", True), ("127.0.0.1:80", False)],
        ),
        ("listen: {address: '127.0.0.1:80', tls: false}", [("127.0.0.1:80", False)]),
        ("listen: ['127.0.0.1:0', '127.0.0.1:0']", [("127.0.0.1:0", True)] * 2),
    ],
)
def test_it_listens_on_one_address_or_on_several(text: str, found: list[tuple[str, bool]]) -> None:
    assert [(str(each), each.tls) for each in parse(text).listen] == found


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("listen: []", "listen", "found an empty list"),
        ("listen: [':80', 'x y:80']", "listen", "'x y:80'"),
        ("listen: [':80', {address: nowhere}]", "listen[1].address", "'nowhere'"),
        ("listen: [{adress: ':80'}]", "listen[0].adress", "write address"),
        ("listen: [{address: ':80', tls: true}]", "listen[0].tls", "true without a certificate"),
        ("listen: [':5000', '127.0.0.1:5000']", "listen[1]", "and :5000 before it"),
        ("listen: [':5000', ':5001']", "listen[1]", "port 5001, which is admin's too"),
        ("listen: ':5000'\nadmin: ':5000'", "admin", "port 5000, which is listen's too"),
    ],
)
def test_what_cannot_be_listened_on_is_told(text: str, where: str, words: str) -> None:
    problems = problems_of(text)
    assert any(f": {where}: " in problem and words in problem for problem in problems), problems


def test_what_a_certificate_says_is_read(tmp_path: Path) -> None:
    tls = parse(write_pair(tmp_path)).tls
    assert tls is not None
    assert tls.facts.names == ["mirror.lan", str(IPV4), str(IPV6)]
    left = tls.facts.ends - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert tls.facts.begins < datetime.now(UTC)


def test_an_expired_certificate_is_no_mistake(tmp_path: Path) -> None:
    """It is said, and served: a mirror that did not start for it would be worse for all who do not
    verify."""
    tls = parse(write_pair(tmp_path, days=-3)).tls
    assert tls is not None
    assert tls.facts.ends < datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("tls: {cert: /nowhere.pem}", "tls.cert", "'/nowhere.pem': no such file"),
        ("tls: {cert: '{m}.pem'}", "tls.cert", "m.pem' without a private key in it, and no key"),
        ("tls: {cert: '{m}.pem', key: '{o}-key.pem'}", "tls.key", "whose key is not that of"),
        ("tls: {cert: '{bare}.pem', key: '{bare}-key.pem'}", "tls.cert", "no subject alternative"),
        ("tls: {key: '{m}-key.pem'}", "tls", "no cert"),
        ("tls: {cert: '{m}-key.pem'}", "tls.cert", "which has no certificate in it"),
        ("tls: {cert: '{m}.pem', key: '{m}-key.pem', client_ca: /no}", "tls.client_ca", "'/no'"),
        ("tls: {cert: '{m}.pem', keys: a}", "tls.keys", "write key"),
    ],
)
def test_a_certificate_that_cannot_be_shown_is_told(
    text: str, where: str, words: str, tmp_path: Path
) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, at="other")
    write_pair(tmp_path, at="bare", names=False)
    for sign, name in (("{m}", "m"), ("{o}", "other"), ("{bare}", "bare")):
        text = text.replace(sign, str(tmp_path / name))
    problems = problems_of(text)
    assert any(where in problem and words in problem for problem in problems), problems
    assert "PRIVATE" not in "".join(problems)
