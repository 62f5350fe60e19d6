"""What stands between a mirror and its registry in companies: proxies."""

from __future__ import annotations

import shutil
from pathlib import Path

from .machines import Machine
from .programs import PATH, Programs, accepts, loopback_address, run

_PORT = 3128
_SQUID = """
http_port {address}:{port}
tcp_outgoing_address {address}
{rules}
http_access allow all
cache deny all
access_log none
cache_log stdio:/dev/null
pid_filename none
shutdown_lifetime 0 seconds
"""
_TINYPROXY = """
Listen {address}
Port {port}
Timeout 60
MaxClients 100
{rules}
"""


def serve_proxy(programs: Programs, rules: str = "", hosts: Path | None = None) -> tuple[str, str]:
    """squid, which lets everybody go anywhere but for these rules, and knows the names of `hosts`;
    its URL, and the address that servers see."""
    address = loopback_address()
    programs.folder.chmod(0o711)  # squid becomes another user
    if hosts is not None:
        hosts.chmod(0o644)
        rules += f"\nhosts_file {hosts}"
    configuration = programs.folder / f"squid-{address}.conf"
    configuration.write_text(_SQUID.format(address=address, port=_PORT, rules=rules))
    program = programs.start(configuration.stem, "squid", "-N", "-f", configuration)
    program.wait_until(lambda: accepts(address, _PORT), "squid listens")
    return f"http://{address}:{_PORT}", address


def with_login(programs: Programs, name: str, password: str) -> str:
    """The rules by which squid wants this login."""
    file = programs.folder / "squid-passwords"
    hashed = run("openssl", "passwd", "-apr1", password).stdout.strip()
    file.write_text(f"{name}:{hashed}\n")
    file.chmod(0o644)
    helper = shutil.which("basic_ncsa_auth", path="/usr/lib/squid")
    return (
        f"auth_param basic program {helper} {file}\n"
        "auth_param basic credentialsttl 1 second\n"
        "acl known proxy_auth REQUIRED\nhttp_access deny !known"
    )


def serve_tinyproxy(programs: Programs, rules: str = "", hosts: Path | None = None) -> str:
    """tinyproxy with these rules, which knows the names of `hosts`; its URL."""
    address = loopback_address()
    configuration = programs.folder / f"tinyproxy-{address}.conf"
    configuration.write_text(_TINYPROXY.format(address=address, port=_PORT, rules=rules))
    argv: list[str] = ["tinyproxy", "-d", "-c", str(configuration)]
    if hosts is not None:
        argv = Machine(hosts).argv(*argv)
    program = programs.start(configuration.stem, *argv, env={"PATH": PATH})
    program.wait_until(lambda: accepts(address, _PORT), "tinyproxy listens")
    return f"http://{address}:{_PORT}"
