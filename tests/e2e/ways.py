"""What stands between a mirror and its registry in companies: a proxy."""

from __future__ import annotations

from .programs import Programs, accepts, loopback_address

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


def serve_proxy(programs: Programs) -> tuple[str, str]:
    """squid, which lets everybody go anywhere; its URL, and the address that servers see."""
    address = loopback_address()
    configuration = programs.folder / "squid.conf"
    configuration.write_text(_SQUID.format(address=address))
    program = programs.start("squid", "squid", "-N", "-f", configuration)
    program.wait_until(lambda: accepts(address, 3128), "squid listens")
    return f"http://{address}:3128", address
