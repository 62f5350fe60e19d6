"""Sockets that systemd passes on, by the key that they stand for."""

from __future__ import annotations

import socket

from mirror import config
from mirror.app.sockets import Given, pull_ports


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def port_of(one: socket.socket) -> int:
    return int(one.getsockname()[1])


def parse(hosted: int) -> config.Config:
    text = f"hosted: {{listen: {{address: '127.0.0.1:{hosted}', tls: false}}}}"
    return config.parse(text, "mirror.yaml")


def test_a_socket_is_hosted_by_its_name_or_else_by_its_port() -> None:
    by_name, by_port, other = listening(), listening(), listening()
    given = Given([("hosted", by_name), ("", by_port), ("", other)]).of(parse(port_of(by_port)))
    assert (given.hosted, given.listen, given.admin) == ([by_name, by_port], [other], [])
    for each in (by_name, by_port, other):
        each.close()


async def test_workers_share_what_was_passed_on_and_have_their_own_of_what_was_not() -> None:
    passed = listening()
    written = parse(0).but({"workers": 2})
    async with pull_ports(written, Given([("listen", passed)])) as ports:
        found = [[port.section for port in each] for each in ports]
        assert found == [["listen", "hosted"]] * 2
        assert [each[0].socket for each in ports] == [passed, passed]
        one, other = (each[1].socket for each in ports)
        assert one is not other
        assert port_of(one) == port_of(other)
    assert one.fileno() == other.fileno() == -1
