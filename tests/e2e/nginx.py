"""nginx before a registry, as people have it there to give it TLS, or another place."""

from __future__ import annotations

from pathlib import Path

from .certificates import issue
from .programs import Programs, accepts, loopback_address

PORT, TLS_PORT = 5000, 5443
_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen {address}:{port}{rules}
    }}
}}
"""


def serve_tls(programs: Programs, name: str, origin: str, rules: str) -> tuple[str, Path]:
    """nginx with a certificate of an authority of its own before this registry, and more rules of
    its configuration; the URL, and the authority."""
    folder, address = programs.folder / f"{name}-tls", loopback_address()
    folder.mkdir()
    made = issue(folder, (address,))
    rules = f""" ssl;
        ssl_certificate {made.server};
        ssl_certificate_key {made.server};
        {rules}
        location / {{ proxy_pass {origin}; proxy_set_header Host $http_host; }}"""
    _serve(programs, name, address, TLS_PORT, rules)
    return f"https://{address}:{TLS_PORT}", made.authority


def serve_below(programs: Programs, name: str, origin: str, path: str) -> str:
    """As Artifactory: the registry below this path, and a console for people at all others; the
    host's URL."""
    rules = f""";
        location {path}/v2/ {{ proxy_pass {origin}/v2/; }}
        location / {{ return 302 "/ui/"; }}
        location /ui/ {{ default_type text/html; return 200 "<html>console"; }}"""
    return _serve_plainly(programs, name, rules)


def serve_project(programs: Programs, name: str, origin: str, project: str) -> str:
    """As Harbor: the registry's repositories below this project's name, and a console for people,
    whatever the path; the host's URL."""
    rules = f""";
        location = /v2/ {{ proxy_pass {origin}/v2/; }}
        location /v2/{project}/ {{ proxy_pass {origin}/v2/; }}
        location / {{ default_type text/html; return 200 "<html>console"; }}"""
    return _serve_plainly(programs, name, rules)


def _serve_plainly(programs: Programs, name: str, rules: str) -> str:
    address = loopback_address()
    _serve(programs, name, address, PORT, rules)
    return f"http://{address}:{PORT}"


def _serve(programs: Programs, name: str, address: str, port: int, rules: str) -> None:
    folder = programs.folder / name
    folder.mkdir()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, address=address, port=port, rules=rules)
    )
    argv = ("nginx", "-p", folder, "-e", "stderr", "-c", configuration)
    program = programs.start(name, *argv)
    program.wait_until(lambda: accepts(address, port), "nginx listens")
