"""Docker's credential helpers, as programs that are run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.app.credential_helpers import CredentialHelper, server_of
from mirror.upstream.endpoint import IdentityToken, Login, NoLogin

from .e2e.programs import needs
from .waiting import until

SECRET = "hunter2-is-no-secret"
NULL_USER = "00000000-0000-0000-0000-000000000000"


class Programs:
    """A folder on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, script: str) -> None:
        path = self.folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Programs(tmp_path)


def helper(username: str | None = None, within: float = 30) -> CredentialHelper:
    return CredentialHelper("it", "registry.corp", username, within)


def failure(one: CredentialHelper) -> str:
    with pytest.raises(NoLogin) as caught:
        one.ask()
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        (
            "https://1234.dkr.ecr.eu-west-1.amazonaws.com",
            "1234.dkr.ecr.eu-west-1.amazonaws.com",
        ),
        ("https://registry.corp:5000/v2/project", "registry.corp:5000"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/", "https://index.docker.io/v1/"),
    ],
)
def test_the_server_is_called_as_dockers_clients_call_it(url: str, server: str) -> None:
    assert server_of(url) == server


def test_it_is_given_the_server_and_the_environment(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mirror")
    programs.write(
        "it", """printf '{"Username": "%s %s", "Secret": "%s"}' "$1" "$(cat)" "$AWS_PROFILE" """
    )
    told = helper().ask()
    assert isinstance(told, Login)
    assert told.username == "get registry.corp"
    assert told.secret.get_secret_value() == "mirror"


@pytest.mark.parametrize(
    ("said", "configured", "told"),
    [
        ('{"ServerURL": "x", "Username": "AWS", "Secret": "s"}', None, ("AWS", Login)),
        ('{"Username": "AWS", "Secret": "s", "More": 1}', "other", ("AWS", Login)),
        ('{"Username": "", "Secret": "s"}', "me", ("me", Login)),
        ('{"Username": "<token>", "Secret": "s"}', None, (NULL_USER, IdentityToken)),
        ('{"Username": "<token>", "Secret": "s"}', "me", ("me", IdentityToken)),
        (f'{{"Username": "{NULL_USER}", "Secret": "s"}}', None, (NULL_USER, IdentityToken)),
    ],
)
def test_whose_the_secret_is(
    programs: Programs, said: str, configured: str | None, told: tuple[str, type]
) -> None:
    programs.write("it", f"echo '{said}'")
    login = helper(configured).ask()
    assert (login.username, type(login)) == told
    assert login.secret.get_secret_value() == "s"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo credentials not found in native keychain; exit 1",
            "'credentials not found in native keychain'",
        ),
        ("echo no account is selected >&2; exit 3", "'no account is selected'"),
        ("exit 3", "it ended with status 3"),
        ("kill -9 $$", "it ended with status -9"),
        ("""printf 'a\\033[31mred\\nsecond' ; exit 1""", "'a\\x1b[31mred'"),
        (f"""echo '{{"Secret": "{SECRET}"}}'; exit 1""", "it ended with status 1"),
        (f"echo {SECRET}", "it sent what is no JSON"),
        ("", "it sent what is no JSON"),
        ("echo '[]'", "it sent no object"),
        ("""echo '{"Username": "", "Secret": ""}'""", "it sent no secret"),
        ("""echo '{"Username": "me"}'""", "it sent no secret"),
        (f"""echo '{{"Username": "", "Secret": "{SECRET}"}}'""", "it sent "),
        (f"""echo '{{"Username": "a:b", "Secret": "{SECRET}"}}'""", "it sent a colon"),
        (f"""echo '{{"Username": ["a"], "Secret": "{SECRET}"}}'""", "it sent "),
        (f"""echo '{{"Username": "me", "Secret": ["{SECRET}"]}}'""", "it sent no secret"),
        (f"""echo '{{"Username": "me", "Secret": "{SECRET}\\u0000"}}'""", "NUL"),
        (f"""echo '{{"Username": "me", "Secret": "{SECRET}\\ud800"}}'""", "not UTF-8"),
        (f"""echo '{{"Username": "<token>", "Secret": "{SECRET} x"}}'""", "an identity token with"),
        ("cat /dev/zero", "more than 65536 bytes"),
        ("cat /dev/zero >&2", "more than 65536 bytes"),
    ],
)
def test_why_there_is_no_login_is_said_and_no_secret(
    programs: Programs, script: str, words: str
) -> None:
    programs.write("it", script)
    said = failure(helper())
    assert said.startswith("docker-credential-it tells no login for registry.corp: ")
    assert words in said
    assert SECRET not in said
    assert len(said) < 400


def test_a_program_that_is_not_there_or_cannot_be_run(programs: Programs) -> None:
    assert "no such program on the PATH" in failure(helper())
    programs.write("it", "")
    (programs.folder / "docker-credential-it").write_text("#!/no/such/interpreter\n")
    assert "it cannot be run" in failure(helper())


def test_one_that_hangs_is_ended_with_all_that_it_has_started(programs: Programs) -> None:
    pids = programs.folder / "pids"
    programs.write("it", f"sleep 1000 & echo $! $$ > {pids}; wait")
    assert "did not end within 0.5 s" in failure(helper(within=0.5))
    ended = [int(pid) for pid in pids.read_text().split()]
    assert len(ended) == 2
    until(lambda: not any(map(runs, ended)))  # a killed process may be on its way out


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # whoever adopts it may not have seen it


def test_one_that_has_ended_is_not_waited_for_by_what_it_leaves_behind(programs: Programs) -> None:
    """As gpg leaves its agent."""
    pid = programs.folder / "pid"
    script = f"""sleep 1000 & echo $! > {pid}; echo '{{"Username": "me", "Secret": "s"}}'"""
    programs.write("it", script)
    try:
        assert helper().ask().username == "me"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_one_that_closes_its_streams_first_is_waited_for(programs: Programs) -> None:
    script = """echo '{"Username": "me", "Secret": "s"}'; exec >&- 2>&- <&-; sleep 0.2"""
    programs.write("it", script)
    assert helper().ask().username == "me"
    programs.write("it", "exec >&- 2>&- <&-; sleep 1000")
    assert "did not end within" in failure(helper(within=0.3))


def test_amazons_own_says_what_it_lacks() -> None:
    needs("docker-credential-ecr-login")
    server = "1234.example.com"
    assert "credentials not found" in failure(CredentialHelper("ecr-login", server))


@pytest.fixture
def password_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`pass`, with a key of its own and nobody's agent."""
    needs("docker-credential-pass", "pass", "gpg")
    home = tempfile.mkdtemp()  # a short path: the agent's socket is in it
    monkeypatch.setenv("GNUPGHOME", home)
    monkeypatch.setenv("PASSWORD_STORE_DIR", str(tmp_path / "store"))
    batch = ("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "mirror", "default")
    try:
        subprocess.run(batch, check=True, capture_output=True)
        subprocess.run(("pass", "init", "mirror"), check=True, capture_output=True)
        yield
    finally:
        subprocess.run(("gpgconf", "--kill", "gpg-agent"), check=False)
        shutil.rmtree(home)


def test_a_login_that_docker_has_stored_with_pass_is_told(password_store: None) -> None:
    stored = '{"ServerURL": "registry.corp", "Username": "ann", "Secret": "pass:w\\u00f6rd"}'
    program = ("docker-credential-pass", "store")
    subprocess.run(program, input=stored.encode(), check=True, capture_output=True)
    told = CredentialHelper("pass", "registry.corp").ask()
    assert (told.username, told.secret.get_secret_value()) == ("ann", "pass:wörd")
    assert "no secret" in failure(CredentialHelper("pass", "other.corp"))
