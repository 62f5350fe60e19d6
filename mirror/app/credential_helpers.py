"""Docker's credential helpers: programs that tell the login for a server.

`docker-credential-<name> get`, with the server's address on standard input, writes
`{"ServerURL": …, "Username": …, "Secret": …}` on standard output, or fails and says there why. The
user `<token>` means that the secret is an identity token.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
from dataclasses import field
from urllib.parse import urlsplit

from ..clock import Clock
from ..config import (
    IDENTITY_TOKEN_USER,
    Mistake,
    checked_identity_token,
    checked_password,
    checked_username,
)
from ..frozen import dataclass
from ..oci.errors import quoted
from ..oci.registries import DOCKER_HUB, is_registry, parse_registry
from ..secret_text import SecretStr
from ..times import HELPER
from ..upstream.endpoint import IdentityToken, Login, NoLogin

_MOST_OUTPUT = 64 * 1024  # bytes, of each of its two streams
_LOOK = 0.1  # seconds, after which it is seen to have ended, whoever holds its pipes open
_TOKEN = "<token>"  # noqa: S105 - the user of an identity token
_DOCKER_HUB_SERVER = "https://index.docker.io/v1/"


def server_of(url: str) -> str:
    """What Docker's clients call the registry at this URL, when they ask a helper: its host, and
    its port if it is written."""
    host = urlsplit(url).netloc
    is_docker_hub = is_registry(host) and parse_registry(host) == DOCKER_HUB
    return _DOCKER_HUB_SERVER if is_docker_hub else host


@dataclass(frozen=True, slots=True)
class CredentialHelper:
    """A LoginSource. `username`: whose the secret is where the helper does not say."""

    name: str
    server: str
    username: str | None = None
    within: float = HELPER
    clock: Clock = field(default_factory=Clock)

    def place(self) -> str:
        return f"docker-credential-{self.name}"

    def is_there(self) -> bool:
        """Whether such a program is on the PATH."""
        return shutil.which(self.place()) is not None

    def ask(self) -> Login | IdentityToken:
        program = shutil.which(self.place())
        if program is None:
            raise self._fault("there is no such program on the PATH")
        try:
            output = self._run(program)
        except OSError as error:
            raise self._fault(f"it cannot be run: {error.strerror}") from None
        try:
            return _read(output, self.username)
        except Mistake as mistake:
            raise self._fault(f"it sent {mistake.found}") from None

    def _fault(self, why: str) -> NoLogin:
        return NoLogin(f"{self.place()} tells no login for {self.server}: {why}")

    def _run(self, program: str) -> bytes:
        """Its standard output. Nothing of that is ever told where it has ended well: it is the
        secret. Raises OSError, NoLogin."""
        process = subprocess.Popen(  # noqa: S603 - by its path, and without a shell
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it starts is ended with it
        )
        with process:
            try:
                output, errors = self._exchange(process)
            except BaseException:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            words = _first_line(output) or _first_line(errors)
            raise self._fault(words or f"it ended with status {process.returncode}")
        return output

    def _exchange(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """Both streams of a program that has ended. Raises NoLogin when it takes too long, or says
        too much."""
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018
        until = self.clock.monotonic() + self.within
        try:
            process.stdin.write(self.server.encode())  # fits into the pipe
            process.stdin.close()
        except BrokenPipeError:
            pass  # it does not want to know
        said: dict[object, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        late = self._fault(f"it did not end within {self.within:g} s, and was ended")
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                has_ended = process.poll() is not None
                ready = selector.select(0 if has_ended else _LOOK)
                for key, _ in ready:
                    piece = os.read(key.fd, _MOST_OUTPUT)
                    said[key.fileobj] += piece
                    if not piece:
                        selector.unregister(key.fileobj)
                    if len(said[key.fileobj]) > _MOST_OUTPUT:
                        raise self._fault(f"it writes more than {_MOST_OUTPUT} bytes")
                if has_ended and not ready:
                    break  # what it has started, and left, has its streams open
                if self.clock.monotonic() >= until:
                    raise late
        try:
            process.wait(max(0.0, until - self.clock.monotonic()))
        except subprocess.TimeoutExpired:
            raise late from None
        return bytes(said[process.stdout]), bytes(said[process.stderr])


def _first_line(words: bytes) -> str:
    """What a program that has failed says, fit for a message: nothing that may be a secret."""
    line = words.decode(errors="replace").strip().partition("\n")[0]
    return "" if line.startswith("{") else quoted(line, 200) if line else ""


def _read(output: bytes, username: str | None) -> Login | IdentityToken:
    """Raises Mistake."""
    try:
        said = json.loads(output)
    except (ValueError, RecursionError):
        raise Mistake("what is no JSON", "") from None
    if not isinstance(said, dict):
        raise Mistake("no object of JSON", "")
    user, secret = said.get("Username"), said.get("Secret")
    if not secret:
        raise Mistake("no secret, as for a server that it does not know", "")
    if user == _TOKEN:
        token = checked_identity_token(secret)
        return IdentityToken(username or IDENTITY_TOKEN_USER, SecretStr(token))
    user = checked_username(user or username)
    password = SecretStr(checked_password(secret))
    if user == IDENTITY_TOKEN_USER:
        return IdentityToken(user, password)
    return Login(user, password)
