"""What stands between a mirror and its registry in companies: TLS by nginx, and a proxy."""

from __future__ import annotations

from pathlib import Path

from .certificates import issue
from .programs import Programs, accepts, loopback_address

PORT = 5443
_NGINX = """
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
        listen {address}:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        {rules}
        location / {{
            proxy_pass {origin};
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""
_SQUID = """
http_port {address}:3128
tcp_outgoing_address {address}
http_access allow all
cache deny all
access_log none
cache_log stdio:/dev/null
pid_filename none
shutdown_lifetime 0 seconds
"""


def serve_tls(programs: Programs, name: str, origin: str, rules: str) -> tuple[str, Path]:
    """nginx with a certificate of an authority of its own before this registry, and more rules of
    its configuration; the URL, and the authority."""
    folder, address = programs.folder / name, loopback_address()
    folder.mkdir()
    made = issue(folder, (address,))
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            folder=folder,
            address=address,
            port=PORT,
            certificate=made.server,
            origin=origin,
            rules=rules,
        )
    )
    argv = ("nginx", "-p", folder, "-e", "stderr", "-c", configuration)
    program = programs.start(name, *argv)
    program.wait_until(lambda: accepts(address, PORT), "nginx listens")
    return f"https://{address}:{PORT}", made.authority


def serve_proxy(programs: Programs) -> tuple[str, str]:
    """squid, which lets everybody go anywhere; its URL, and the address that servers see."""
    address = loopback_address()
    configuration = programs.folder / "squid.conf"
    configuration.write_text(_SQUID.format(address=address))
    program = programs.start("squid", "squid", "-N", "-f", configuration)
    program.wait_until(lambda: accepts(address, 3128), "squid listens")
    return f"http://{address}:3128", address
