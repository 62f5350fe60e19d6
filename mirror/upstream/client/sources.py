"""Where a login of ours is had from: a file, a variable, or a credential helper. Read and asked off
the event loop: a file may be on a share that is gone, and a program takes its time."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import structlog

from ...asking.budgets import Budget
from ...clock import Clock
from ...contracts.accounts import Notes, RefusedLogin
from ...secret_text import SecretStr
from ...threads import MayHang
from ...times import HELPER, SECRET
from ..endpoint import Configured, Credentials, HelperLogin, NoLogin

_log = structlog.get_logger()

_END = 5.0  # seconds to end a program in, beside its own
# Each refusal of a repository, which clients choose, would else run a helper: so many at once, and
# more a second, unless what it tells is new.
_HELPER_ASKS = 4.0
_HELPER_REFILL = 0.1
# After so many it is asked in the background. Amazon's passwords live for 12 h, Google's for one.
_HELPER_OLD = 1800.0


def place_of(login: Configured) -> str:
    """Where it is kept, in words for the operator."""
    if isinstance(login, HelperLogin):
        return login.program.place()
    return login.source.place() if login.source else ""


def _fingerprint(secret: str) -> str:
    """Tells a secret from others, in a note on the disk: slow to guess by. Blocking, for 50 ms."""
    return hashlib.scrypt(
        secret.encode(), salt=b"registry-mirror", n=2**14, r=8, p=1, dklen=8
    ).hex()


class Source:
    """Of one login at one endpoint. `stamp` tells the secret that was read last from others: its
    file's, or a fingerprint of what is in none."""

    def __init__(self, endpoint: str, name: str, configured: Configured, clock: Clock) -> None:
        self._endpoint = endpoint
        self._name = name
        self._clock = clock
        self._helper = configured if isinstance(configured, HelperLogin) else None
        self._secret = None if isinstance(configured, HelperLogin) else configured.source
        self._program = MayHang(HELPER + _END)
        self._disk = MayHang(SECRET)
        self._asked_at = float("-inf")
        self._asks = Budget(_HELPER_ASKS, _HELPER_REFILL, clock)
        self.place = place_of(configured)
        self.stamp = ""
        self._is_file = False
        self._told: tuple[str, str] | None = None  # a secret, and its fingerprint

    def again(self, at: str) -> str:
        """When a login that is refused is shown again, in words."""
        if self._helper:
            return f"{self.place} is asked for it again at {at}"
        when = "when its file is written anew, or " if self._is_file else ""
        return f"it is shown again {when}at {at}"

    @property
    def mend(self) -> str:
        """What the operator has to do of a login that is refused, in words."""
        if self._helper:
            return f"see what {self.place} needs, run as the mirror's user, then reload the mirror"
        if self._is_file:
            return "write the right password into its file, which is then read again by itself"
        return "put the right password into its variable, and restart the mirror"

    def is_old(self) -> bool:
        """Whether it is to be had anew although nothing has refused it."""
        return bool(self._helper) and self._clock.monotonic() - self._asked_at >= _HELPER_OLD

    async def read(self, known: Credentials | None) -> Credentials | None:
        """The login as it is by now; `known`, as it was, also where it cannot be had now. Raises
        NoLogin where nothing is known."""
        if self._helper:
            return await self._ask(self._helper, known)
        if known is None:
            return None
        source = self._secret

        def look() -> tuple[str, SecretStr | None]:
            return self._stamp_of(known), source.read() if source else None

        try:
            self.stamp, secret = await self._disk.run(look)
        except (TimeoutError, OSError) as error:
            self._warn(str(error) or f"not read within {SECRET:g} s")
            return known
        # Their values: secrets of the configuration are of a type of their own, and equal none.
        if secret is None or secret.get_secret_value() == known.secret.get_secret_value():
            return known
        return replace(known, secret=secret)

    async def _ask(self, helper: HelperLogin, known: Credentials | None) -> Credentials | None:
        if not self._asks.take() and known is not None:
            return known
        self._asked_at = self._clock.monotonic()
        try:
            found = await self._program.run(helper.program.ask)
            if found != known:
                self._asks.give_back()
                self.stamp = await self._disk.run(lambda: self._stamp_of(found))
            return found
        except NoLogin as error:
            failed = error
        except (TimeoutError, OSError) as error:
            failed = NoLogin(f"{self.place} tells no login: {str(error) or 'it does not end'}")
        if known is None:
            raise failed
        self._warn(str(failed))
        return known

    async def heard(
        self, notes: Notes | None, known: Credentials | None
    ) -> tuple[RefusedLogin | None, str] | None:
        """What another process has noted, and the secret's stamp as it is now; None: that cannot be
        told, or is of no use yet."""
        if known is None:
            return None
        try:
            return await self._disk.run(
                lambda: (notes.heard() if notes else None, self._stamp_of(known))
            )
        except (TimeoutError, OSError):
            return None

    def _stamp_of(self, known: Credentials) -> str:
        """Of the file as it is now; where there is none, of what is known. Blocking."""
        stamp = self._secret.stamp() if self._secret else ""
        self._is_file = bool(stamp)
        if stamp:
            return stamp
        secret = known.secret.get_secret_value()
        if self._told is None or self._told[0] != secret:
            self._told = secret, _fingerprint(secret)
        return self._told[1]

    def _warn(self, reason: str) -> None:
        _log.warning(
            "secret_unreadable",
            endpoint=self._endpoint,
            login=self._name,
            reason=reason,
            hint="the login stays as it was",
        )
