"""Logins: secrets from files and the environment, read when the configuration is.

No message shows a secret, nor what stands where its name should: the password itself is
written there by mistake often enough. Each function raises Mistake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..oci.errors import quoted
from ..secret_text import SecretStr
from .problems import Mistake
from .values import text

IDENTITY_TOKEN_USER = "00000000-0000-0000-0000-000000000000"  # noqa: S105 - no secret
"""Whose password is an identity token (Azure's registries take it so from `docker login`)."""

MAX_SECRET = 64 * 1024  # bytes; the longest tokens in use are a few KiB

_LEAST_TOKEN = 16  # characters: 64 bits where they are hexadecimal
_LEAST_FLEET_SECRET = 32

_HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PLAIN = re.compile(r"[\x21-\x7e]+")
_LINE = re.compile(r"[\x20-\x7e]+")
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750, 2.1


def username(value: object) -> str:
    """A user's name, fit for HTTP Basic: no colon (RFC 7617, 2)."""
    write = "the user's name"
    given = text(value, write)
    if ":" in given:
        raise Mistake("a colon, which no user's name has", f"{write} alone, and password_file")
    return given


Check = Callable[[str], str]


class Secret(SecretStr):
    """A secret, as it was when the configuration was read. `file` is where it stands; None: in the
    environment, which does not change."""

    def __init__(self, value: str, again: Callable[[], str], file: Path | None) -> None:
        super().__init__(value)
        self._again = again
        self.file = file

    def read(self) -> SecretStr:
        """The secret as it is by now. Raises Mistake."""
        return SecretStr(self._again())


def password_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline, as `docker login --password-stdin` reads it."""
    return _from_file(value, _password)


def password_from_environment(value: object) -> Secret:
    """The variable's value."""
    return _from_environment(value, _password)


def token_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline: fit to stand in an Authorization header."""
    return _from_file(value, _token)


def token_from_environment(value: object) -> Secret:
    """The variable's value: fit to stand in an Authorization header."""
    return _from_environment(value, _token)


def admin_token_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline: what clients of the admin port show, so long that
    nobody guesses it."""
    return _from_file(value, _admin_token)


def fleet_secret_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline: what the nodes of a fleet share."""
    return _from_file(value, _fleet_secret)


def fleet_secret_from_environment(value: object) -> Secret:
    """The variable's value."""
    return _from_environment(value, _fleet_secret)


def identity_token_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline."""
    return _from_file(value, _identity_token)


def identity_token_from_environment(value: object) -> Secret:
    """The variable's value."""
    return _from_environment(value, _identity_token)


def secret_key_from_file(value: object) -> Secret:
    """The file's text, less one trailing newline: what signs requests, and is never sent."""
    return _from_file(value, _secret_key)


def secret_key_from_environment(value: object) -> Secret:
    """The variable's value."""
    return _from_environment(value, _secret_key)


def credential_helper(value: object) -> str:
    """What follows `docker-credential-` in the name of a program on the PATH."""
    write = "the name alone, such as ecr-login for the program docker-credential-ecr-login"
    given = text(value, write)
    if not _HELPER.fullmatch(given) or given.startswith("docker-credential-"):
        raise Mistake("what is no credential helper's name", write)
    return given


def checked_password(value: object) -> str:
    """A password that a credential helper has told."""
    if not isinstance(value, str) or not value:
        raise Mistake("no secret", "a text")
    return _password(value)


def checked_identity_token(value: object) -> str:
    """As `checked_password`, of an identity token."""
    return _identity_token(checked_password(value))


def _from_file(value: object, check: Check) -> Secret:
    again = partial(_checked, _read, value, check)  # which can be sent to a worker
    secret = again()  # which tells that the value is a path
    return Secret(secret, again, Path(os.path.expanduser(str(value))))


def _from_environment(value: object, check: Check) -> Secret:
    again = partial(_checked, variable, value, check)
    return Secret(again(), again, None)


def _checked(read: Callable[[object], str], value: object, check: Check) -> str:
    return check(read(value))


def _read(value: object) -> str:
    write = "the path of a readable file that holds the secret and nothing else"
    given = text(value, write)
    place = _shown(given)
    try:
        with open(os.path.expanduser(given), "rb") as file:
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise Mistake(f"{place}: {reason}", write) from None
    if len(data) > MAX_SECRET:
        raise Mistake(f"{place}: more than {MAX_SECRET} bytes", write)
    try:
        secret = data.decode()
    except UnicodeDecodeError:
        raise Mistake(f"{place}: not UTF-8 text", write) from None
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise Mistake(f"{place}: empty", write)
    return secret


def variable(value: object) -> str:
    """The value of the environment's variable of this name."""
    write = "the name of an environment variable that is set and not empty"
    secret = os.environ.get(text(value, write))
    if secret is None:
        raise Mistake("a variable that is not set", write)
    if not secret:
        raise Mistake("a variable that is empty", write)
    return secret


def _password(secret: str) -> str:
    # Other control characters, which RFC 7617 (2) forbids, are Docker's clients' to send, and
    # registries' to take: Google's password is a key file of several lines (user _json_key).
    if "\0" in secret:
        raise Mistake("a secret with NUL bytes", "the secret as text")
    if not _is_utf8(secret):
        raise Mistake("a secret that is not UTF-8 text", "the secret as text")
    return secret


def _is_utf8(secret: str) -> bool:
    """Whether it can be sent: a variable's bytes that are no UTF-8 are surrogates in os.environ."""
    return not any("\ud800" <= sign <= "\udfff" for sign in secret)


def _identity_token(secret: str) -> str:
    if not _PLAIN.fullmatch(secret):
        raise Mistake("an identity token with spaces or lines in it", "the token as issued")
    return secret


def _secret_key(secret: str) -> str:
    if not _PLAIN.fullmatch(secret):
        raise Mistake("a secret key with spaces or lines in it", "the key as issued")
    return secret


def _token(secret: str) -> str:
    if not _BEARER.fullmatch(secret):
        raise Mistake("a token with spaces or other signs that no token has", "the token as issued")
    return secret


def _admin_token(secret: str) -> str:
    token = _token(secret)
    if len(token) < _LEAST_TOKEN:
        write = "a long one that nobody knows, such as `openssl rand -hex 32` makes"
        raise Mistake(f"a token of fewer than {_LEAST_TOKEN} signs", write)
    return token


def _fleet_secret(secret: str) -> str:
    if not _LINE.fullmatch(secret):
        raise Mistake("a secret that is not one line of ASCII", "openssl rand -hex 32 makes one")
    if len(secret) < _LEAST_FLEET_SECRET:
        write = "a long one that nobody knows, such as `openssl rand -hex 32` makes"
        raise Mistake(f"a secret of fewer than {_LEAST_FLEET_SECRET} signs", write)
    return secret


def _shown(given: str) -> str:
    """The path, if its first folder exists; else it may be the secret itself."""
    path = Path(given)
    first = Path(*path.parts[: 2 if path.is_absolute() else 1])
    is_path = first != path and first.is_dir()
    return quoted(given) if is_path else "a file (not shown: it may be the secret itself)"
