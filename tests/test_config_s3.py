"""The section storage.s3: a bucket behind the disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mirror import config
from mirror.config import Config, ConfigError
from mirror.config.reloading import following
from mirror.config.s3 import S3Config


def parsed(text: str) -> S3Config:
    section = config.parse(f"storage: {{s3: {text}}}", "mirror.yaml").storage.s3
    assert section is not None
    return section


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "mirror.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_a_bucket_is_enough() -> None:
    section = parsed("{bucket: registry-mirror}")
    assert section.bucket == "registry-mirror"
    assert (section.endpoint, section.region, section.prefix) == (None, None, "")
    assert section.secret_access_key is None


def test_all_keys(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr+t/=\n")
    section = parsed(
        f"{{bucket: abc, endpoint: 'https://S3.corp.lan:9000/store/', region: eu-1, prefix: /a/b, "
        f"access_key_id: me, secret_access_key_file: {tmp_path}/secret}}"
    )
    assert section.endpoint == "https://s3.corp.lan:9000/store"
    assert section.prefix == "a/b/"
    assert section.secret_access_key is not None
    assert section.secret_access_key.get_secret_value() == "s3cr+t/="


def test_what_is_kept_there_and_who_is_sent_there() -> None:
    section = parsed(
        "{bucket: abc, max_size: 1TiB, keep: 90d, redirect: {networks: [10.0.0.0/8, 'fd00::/8'], "
        "over: 4MiB, endpoint: 'https://s3.example.com'}}"
    )
    assert (section.max_size, section.keep) == (1 << 40, 90 * 86400)
    assert section.redirect is not None
    assert list(map(str, section.redirect.networks)) == ["10.0.0.0/8", "fd00::/8"]
    assert (section.redirect.over, section.redirect.endpoint) == (4 << 20, "https://s3.example.com")
    section = parsed("{bucket: abc, max_size: none, keep: none}")
    assert (section.max_size, section.keep, section.redirect) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "virtual"),
    [
        ("{bucket: abc}", True),
        ("{bucket: a.b.c}", False),  # no certificate of Amazon's is for a name with dots
        ("{bucket: abc, endpoint: 'https://s3.corp.lan'}", False),
        ("{bucket: abc, endpoint: 'https://s3.corp.lan', url_style: virtual}", True),
        ("{bucket: abc, url_style: path}", False),
    ],
)
def test_where_the_name_of_the_bucket_stands(text: str, virtual: bool) -> None:
    assert parsed(text).is_virtual is virtual


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("{}", "s3.bucket", "write bucket: too"),
        ("abc", "s3", "its keys below it"),
        ("{bucket: b}", "s3.bucket", "3 to 63 letters"),
        ("{bucket: 's3://abc'}", "s3.bucket", "and endpoint: with the URL"),
        ("{bucket: abc, endpoint: s3.corp.lan}", "s3.endpoint", "https://s3.example.com"),
        ("{bucket: abc, endpoint: 'https://a:hunter2@b'}", "s3.endpoint", "without a login"),
        ("{bucket: abc, region: 'eu central'}", "s3.region", "such as eu-central-1"),
        ("{bucket: abc, prefix: a/../b}", "s3.prefix", "a folder's name in the bucket"),
        (f"{{bucket: abc, prefix: {'a' * 801}}}", "s3.prefix", "800 characters at most"),
        ("{bucket: abc, access_key_id: me}", "s3.access_key_id", "secret_access_key_file: too"),
        ("{bucket: abc, secret_access_key_env: PATH}", "s3.secret_access_key_env", "without acc"),
        (
            "{bucket: abc, access_key_id: me, secret_access_key: hunter2}",
            "s3.secret_access_key",
            "the path of a file",
        ),
        ("{bucket: abc, url_style: other}", "s3.url_style", "virtual or path"),
        ("{bucket: abc, keep: 1h}", "s3.keep", "2d at least"),
        ("{bucket: abc, max_size: much}", "s3.max_size", "such as 50GiB"),
        ("{bucket: abc, redirect: {over: 1MiB}}", "s3.redirect.networks", "networks: too"),
        ("{bucket: abc, redirect: {networks: []}}", "s3.redirect.networks", "such as [10.0.0.0/8]"),
        (
            "{bucket: abc, redirect: {networks: [lan]}}",
            "s3.redirect.networks[0]",
            "such as 10.0.0.0/8",
        ),
        (
            "{bucket: abc, redirect: {networks: [10.0.0.1/8]}}",
            "s3.redirect.networks[0]",
            "host bits",
        ),
        (
            "{bucket: abc, endpoint: 'http://127.0.0.1:9000', url_style: virtual}",
            "s3.url_style",
            "an endpoint with a host's name",
        ),
    ],
)
def test_mistakes_say_what_to_write(text: str, where: str, words: str) -> None:
    problems = problems_of(f"storage: {{s3: {text}}}")
    assert len(problems) == 1, problems
    assert f": storage.{where}: " in problems[0], problems
    assert words in problems[0], problems
    assert "hunter2" not in problems[0]


def test_a_folder_and_a_bucket_are_one_too_many() -> None:
    [problem] = problems_of("storage: {second_tier: /mnt/share, s3: {bucket: abc}}")
    assert "found second_tier beside it, write one of them" in problem


def test_without_obstore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "mirror.config.s3.find_spec", lambda name: None if name == "obstore" else find(name)
    )
    [problem] = problems_of("storage: {s3: {bucket: abc}}")
    assert "write pip install 'registry-mirror[s3]' first" in problem


def test_it_needs_a_restart() -> None:
    written = config.parse("storage: {s3: {bucket: abc}}", "mirror.yaml")
    counts, kept = following(Config(), written)
    assert counts.storage.s3 is None
    assert kept == ["storage.s3"]


def test_a_secret_that_was_replaced_in_its_file_needs_none(tmp_path: Path) -> None:
    """It is read again while the mirror runs."""
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text("before")
    other.write_text("before")

    def by(file: Path) -> Config:
        keys = f"bucket: blobs, access_key_id: me, secret_access_key_file: {file}"
        return config.parse(f"storage: {{s3: {{{keys}}}}}", "mirror.yaml")

    running = by(secret)
    secret.write_text("after")
    assert following(running, by(secret))[1] == []
    assert following(running, by(other))[1] == ["storage.s3"]
