"""systemd: the sockets that it passes on, and what it is told: that the mirror is ready, reloads,
stops, and that its loop runs.

sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import field

from ..frozen import dataclass
from ..tasks import beside
from .sockets import Given, given_sockets

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Tells the service manager, where there is one. What it does not take is lost: it never holds
    up the mirror. `begun` is called when the mirror serves for the first time."""

    def __init__(
        self,
        environment: MutableMapping[str, str] | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """The variables are taken out of the environment, so that no process that is started from
        here speaks for this one."""
        self._begun: Callable[[], None] | None = begun
        values = {name: (environment or {}).pop(name, "") for name in _VARIABLES}
        name = values["NOTIFY_SOCKET"]
        # An abstract socket's name begins with a zero byte, which is written as "@".
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        is_ours = values["WATCHDOG_PID"] in ("", str(os.getpid()))
        micros = values["WATCHDOG_USEC"]
        self._watchdog = int(micros) / 1e6 if micros.isdigit() and is_ours else 0.0

    def status(self, words: str) -> None:
        """One line for people: `systemctl status` shows it."""
        self._tell(f"STATUS={words}")

    def ready(self, words: str) -> None:
        """It serves; or does by a new configuration, after `reloading`."""
        self._tell("READY=1", f"STATUS={words}")
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()

    def reloading(self) -> None:
        # As CLOCK_MONOTONIC has it: systemd orders the messages by it.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading its configuration again")

    def stopping(self, words: str) -> None:
        self._tell("STOPPING=1", f"STATUS={words}")

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While the context lasts, the service manager hears in time that the loop runs."""
        if self._watchdog and self._socket is not None:
            async with beside(self._beat(), "watchdog"):
                yield
        else:
            yield

    async def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Who started this process, if it was one that passes on sockets or wants to be told."""

    given: Given = field(default_factory=Given)
    notifier: Notifier = field(default_factory=Notifier)


def service_manager(
    environment: MutableMapping[str, str], begun: Callable[[], None] = lambda: None
) -> ServiceManager:
    """Raises CannotStart for sockets that cannot be used."""
    notifier = Notifier(environment, begun)
    return ServiceManager(given_sockets(environment), notifier)
