"""Secrets are compared by their text, and shown nowhere."""

from __future__ import annotations

from mirror.config import Secret
from mirror.secret_text import SecretStr


def test_a_secret_is_equal_to_the_same_text_wherever_that_was_read() -> None:
    read = Secret("hunter2", lambda: "hunter2", None)
    assert read == SecretStr("hunter2") == read == read.read()
    assert len({read, SecretStr("hunter2")}) == 1
    assert read != SecretStr("hunter3")
    assert read != "hunter2"


def test_a_secret_is_not_shown() -> None:
    for secret in (SecretStr("hunter2"), Secret("hunter2", lambda: "hunter2", None)):
        assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
