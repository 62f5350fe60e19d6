"""The sockets that a mirror listens on: given to it by systemd, or opened here."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping, Sequence

import structlog

from ..clients.urls import Reach, reach
from ..config import Address, Config, ListenConfig
from ..frozen import dataclass
from ..server.http.accepting import BACKLOG, Port, open_sockets
from .resources import CannotStart

log = structlog.get_logger()

_FIRST = 3  # sd_listen_fds(3): the first descriptor that is passed on
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
LISTEN, ADMIN, HOSTED, FLEET = "listen", "admin", "hosted", "fleet"


@dataclass(frozen=True, slots=True)
class Passed:
    """Sockets that stand for those of a key, and are opened for none."""

    listen: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    hosted: Sequence[socket.socket]


@dataclass(frozen=True, slots=True)
class Given:
    """Sockets by the names that a socket unit gives them (FileDescriptorName=)."""

    sockets: Sequence[tuple[str, socket.socket]] = ()

    def of(self, config: Config) -> Passed:
        """One without such a name is admin's or hosted's where that has its port, and else
        listen's."""
        ports = {config.admin.listen.port: ADMIN}
        ports |= {each.address.port: HOSTED for each in _hosted_at(config)}
        found: dict[str, list[socket.socket]] = {LISTEN: [], ADMIN: [], HOSTED: []}
        for name, each in self.sockets:
            key = name if name in found else ports.get(each.getsockname()[1], LISTEN)
            found[key].append(each)
        return Passed(found[LISTEN], found[ADMIN], found[HOSTED])


def _hosted_at(config: Config) -> Sequence[ListenConfig]:
    return () if config.hosted is None else config.hosted.listen


def _peers_at(config: Config) -> Sequence[ListenConfig]:
    if config.fleet is None:
        return ()
    tls = config.fleet.tls is not None
    return [ListenConfig.of(address=config.fleet.listen, tls=tls)]


def given_sockets(environment: MutableMapping[str, str]) -> Given:
    """What was passed to this process, and to no other that it starts: the variables are taken out
    of the environment. Raises CannotStart for what is not a listening TCP socket."""
    values = {name: environment.pop(name, "") for name in _VARIABLES}
    if values["LISTEN_PID"] != str(os.getpid()) or not values["LISTEN_FDS"].isdigit():
        return Given()
    count = int(values["LISTEN_FDS"])
    names = values["LISTEN_FDNAMES"].split(":") if values["LISTEN_FDNAMES"] else []
    names += [""] * (count - len(names))
    found = [(name, _listening(_FIRST + number, name)) for number, name in enumerate(names[:count])]
    return Given(found)


def _listening(descriptor: int, name: str) -> socket.socket:
    which = f"descriptor {descriptor} ({name or 'without a name'}), which systemd passed on,"
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
        if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return found
    except OSError as error:
        raise CannotStart(f"{which} is no socket: {error.strerror}") from error
    raise CannotStart(f"{which} is no listening TCP socket: write ListenStream=, with a port")


@contextlib.asynccontextmanager
async def pull_ports(config: Config, given: Given) -> AsyncIterator[Sequence[Sequence[Port]]]:
    """The mirror's ports, for each of its workers: those that were given, in place of those in
    `listen`, else these; all of them, or none. Raises CannotStart.

    What was given is shared by all workers. Of what is opened here each has its own, among which
    the kernel deals connections out (SO_REUSEPORT): of sockets that are shared, the worker that
    wakes first takes all that have come. They stay open while a worker is replaced: whoever has
    connected meanwhile waits for the next one.
    """
    passed = given.of(config)
    found: list[Sequence[Sequence[Port]]] = []
    try:
        for sockets, listens, key in (
            (passed.listen, config.listen, LISTEN),
            (passed.hosted, _hosted_at(config), HOSTED),
            ((), _peers_at(config), FLEET),
        ):
            if sockets:
                found.append([_passed(sockets, listens, key)] * config.workers)
            elif listens:
                found.append(await _opened(listens, config.workers, key))
        yield [[port for ports in each for port in ports] for each in zip(*found, strict=True)]
    finally:
        for each in found:
            _close(each)


def _close(ports: Iterable[Iterable[Port]]) -> None:
    for each in ports:
        for port in each:
            port.socket.close()


def _passed(
    sockets: Sequence[socket.socket], listens: Sequence[ListenConfig], section: str
) -> Sequence[Port]:
    plain = {each.address.port for each in listens if not each.tls}
    encrypted = {each.address.port for each in listens if each.tls}
    ports = []
    for each in sockets:
        port = each.getsockname()[1]
        ports.append(Port(each, port in encrypted or port not in plain, section))
    names = [address_of(each) for each in sockets]
    written = [str(each) for each in listens]
    log.info("sockets_passed_on", sockets=names, instead_of=written)
    return ports


async def _opened(
    listens: Sequence[ListenConfig], workers: int, section: str
) -> Sequence[Sequence[Port]]:
    key = LISTEN if section == LISTEN else f"{section}.listen"
    ports: list[Port] = []
    failures = []
    for each in listens:
        try:
            found = await open_sockets(each.address.host, each.address.port, BACKLOG)
        except OSError as error:
            failures.append(cannot_listen(key, each.address, error))
        else:
            ports += [Port(one, each.tls, section) for one in found]
    if failures:
        _close([ports])
        raise CannotStart("\n".join(map(str, failures)))
    if workers == 1:
        return [ports]
    # By now it is known that nobody else listens there, of which sockets that share a port with
    # others (SO_REUSEPORT) would not be told.
    places = [(port.socket.family, port.socket.getsockname(), port.tls) for port in ports]
    _close([ports])
    shared: list[list[Port]] = []
    try:
        for _ in range(workers):
            shared.append([])
            for family, address, tls in places:
                one = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=True)
                shared[-1].append(Port(one, tls, section))
    except OSError as error:
        _close(shared)
        raise CannotStart(f"{key}: {error.strerror or error}") from error
    return shared


def address_of(listening: socket.socket) -> str:
    """As people write it."""
    host, port = listening.getsockname()[:2]
    return str(Address(host, port))


def cannot_listen(key: str, address: Address, error: OSError) -> CannotStart:
    """With what to do about it."""
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        remedy = f"stop whatever uses it (`ss -ltnp 'sport = :{address.port}'`), or write another"
    elif error.errno in (errno.EACCES, errno.EPERM):
        remedy = (
            "write a port from 1024 on, or give the right to this one (systemd: "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE, or a socket unit)"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        remedy = "write an address that this host has (`ip -brief address`)"
    else:
        remedy = "write another address"
    return CannotStart(f"{key}: {address} cannot be listened on ({reason}); {remedy}")


def own_reach(config: Config) -> Reach:
    """By which URLs clients of this host and of others reach the mirror: by HTTPS where it speaks
    that."""
    by_tls = [each.address for each in config.listen if config.tls is not None and each.tls]
    addresses = by_tls or [each.address for each in config.listen]
    places = [(address.host, address.port) for address in addresses]
    return reach(places, "https" if by_tls else "http")


def facts(config: Config) -> Mapping[str, str]:
    """What whoever has started a mirror needs to know of it, for the log."""
    found = own_reach(config)
    admin = reach([(config.admin.listen.host, config.admin.listen.port)]).here
    return {
        "url": found.elsewhere or found.here,
        "page": f"{admin}/",
        "clients": f"registry-mirror setup docker --url {found.elsewhere or found.here}",
    }
