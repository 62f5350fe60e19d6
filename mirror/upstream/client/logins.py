"""A login of the mirror's own at one endpoint: as it is by now, and whether it is refused.

A password that is wrong, shown for each miss, is what gets an address locked out (Docker Hub does
that, and for the right password, too). So it is shown to a token realm by one ask at a time until
it was good once; and upon a refusal its file is read again, once, and then it rests for minutes.

A second ask may show it beside one that has been silent for 2 s, also before it was good: without
that, one connection that is lost after a start would hold all who need it for 15 s. What is silent
has refused nothing yet, there are never more than the two, and neither is broken off for another
client's sake (see Turns): two failed logins are as many as any refusal costs, and lock nobody out.

A refusal may also mean the one repository, which some client has chosen. So the login is then shown
by itself, for nothing: only a refusal of that is one of the login.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from ...clock import Clock
from ...contracts.accounts import Notes, RefusedLogin
from ...contracts.events import LoginJudged
from ...events import Events
from ...oci.errors import Unavailable, Untrustworthy
from ...threads import MayHang
from ..endpoint import Credentials, GivenToken, Login
from ..failures import LoginRefused

_log = structlog.get_logger()

_FIRST_REST = 60.0  # seconds, doubled with each refusal in a row
_LONGEST_REST = 900.0
_BELIEVED = 60.0  # seconds for which a login that was good is not suspected
_PROVEN_EVERY = 5.0  # where that says nothing, since the realm has trouble
_LISTEN_EVERY = 1.0
_READ = 5.0  # seconds for a secret, whose file may be on a share that is gone
_LISTEN = 0.5  # seconds that requests wait for what is seldom news

Proof = Callable[[Credentials], Awaitable[str | None]]
"""Shows these by themselves. Returns what refuses them, in words; None: they are good. Raises
Unavailable."""


def name_of(credentials: Credentials | None) -> str:
    """What metrics and messages call them."""
    if isinstance(credentials, Login):
        return credentials.username
    return "token" if credentials else ""


def header_of(credentials: Credentials) -> str:
    """The Authorization header that shows these."""
    secret = credentials.secret.get_secret_value()
    if isinstance(credentials, GivenToken):
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{credentials.username}:{secret}".encode()).decode("ascii")


def refusal(status: int, where: str) -> str | None:
    """What a Proof says of this answer."""
    if status in (401, 403):
        return f"{where} ({status})"
    if not 200 <= status < 300:
        raise Unavailable(f"{where} answered {status}")
    return None


class OwnLogin:
    """One login at one endpoint. `credentials` are as their file has been read last; `notes` tell
    other processes of a refusal."""

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        clock: Clock,
        events: Events,
        notes: Notes | None = None,
    ) -> None:
        self.credentials = credentials
        self._endpoint = endpoint
        self._name = name_of(credentials)
        self._clock = clock
        self._events = events
        self._notes = notes
        self._disk = MayHang(_READ)
        self._listen_at = float("-inf")
        self._listening: asyncio.Future[None] | None = None
        self.is_proven = False  # whether the login was good once
        self._good_at = float("-inf")
        self._is_tried = False  # whether that was tried, whatever came of it
        self._why = ""  # what refuses the login, in words
        self._rest = _FIRST_REST / 2
        self._until = 0.0  # monotonic: until when it rests, or is not tried again by itself
        self._stamp = ""  # of the secret that is refused
        self._deciding = asyncio.Lock()

    def rests(self) -> bool:
        """Whether the login is refused, and not to be shown now, as far as `listen` has heard."""
        return bool(self._why) and self._clock.monotonic() < self._until

    def refusal(self) -> LoginRefused | None:
        """The error that says that the login is refused; None: it is not."""
        return self._refusal() if self._why else None

    def _refusal(self) -> LoginRefused:
        seconds = max(0.0, self._until - self._clock.monotonic())
        at = datetime.fromtimestamp(self._clock.wall() + seconds, UTC)
        is_token = isinstance(self.credentials, GivenToken)
        what = "the configured token" if is_token else f"the login {self._name!r}"
        return LoginRefused(
            f"{self._why} refuses {what}; it is shown again when its file is written anew, or at "
            f"{at:%Y-%m-%d %H:%M:%S} UTC"
        )

    async def admitted(self, prove: Proof) -> Credentials:
        """What to show. Raises LoginRefused while the login rests; the first ask after that finds
        out whether it is good by now."""
        await self._admit(prove)
        return self.credentials

    async def proven(self, prove: Proof) -> Credentials:
        """As `admitted`, for a login that is shown with each request: it is proven before the
        first."""
        if not self._is_tried:
            async with self._deciding:
                if not self._is_tried and not self.rests():
                    await self._decide(prove)
        await self._admit(prove)
        return self.credentials

    async def _admit(self, prove: Proof) -> None:
        """Where the login has rested, one ask finds out whether it is good, for all that come
        meanwhile."""
        if not self._why:
            return
        async with self._deciding:
            if self.rests():
                raise self._refusal()
            if self._why:
                await self._read_again()
                await self._decide(prove)

    def was_good(self) -> None:
        """The login was shown, and accepted."""
        self.is_proven = True
        self._good_at = self._clock.monotonic()
        if self._why:
            self._forget()
            _log.info("login_is_good_again", endpoint=self._endpoint, login=self._name)
            self._tell()

    async def was_refused(self, shown: Credentials, prove: Proof) -> bool:
        """The login was shown, and refused. Whether to ask once more, since it is another one by
        now. False: what it was shown for is not for it. Raises LoginRefused when it is no good."""
        async with self._deciding:
            if self.credentials != shown:
                return True
            now = self._clock.monotonic()
            if self._why and now < self._until:
                raise self._refusal()
            if await self._read_again():
                return True
            if now - self._good_at >= _BELIEVED and now >= self._until:
                await self._decide(prove)
            return False

    async def _decide(self, prove: Proof) -> None:
        """Finds out whether the login is good. Raises LoginRefused."""
        try:
            who = await prove(self.credentials)
            if who is not None and await self._read_again():
                who = await prove(self.credentials)
        except (Unavailable, Untrustworthy) as error:
            _log.info("login_not_proven", endpoint=self._endpoint, reason=error.message)
            self._until = self._clock.monotonic() + _PROVEN_EVERY
            self._is_tried = True
            return
        self._is_tried = True
        if who is None:
            self.was_good()
            return
        self._give_rest(who)
        raise self._refusal()

    def _give_rest(self, who: str) -> None:
        if not self._why:  # said once, not by each trial
            _log.warning(
                "login_refused",
                endpoint=self._endpoint,
                login=self._name,
                reason=f"{who} refuses it",
                hint="write the right password into its file; it is read again, and nothing need "
                "be restarted. Until then what is public is asked for without a login",
            )
        self._why = who
        self._rest = min(self._rest * 2, _LONGEST_REST)
        self._until = self._clock.monotonic() + self._rest
        self._tell()

    async def _read_again(self) -> bool:
        """Reads the login's file; whether the login is another one by now."""
        source = self.credentials.source
        if source is None:
            return False
        try:
            self._stamp, secret = await self._disk.run(lambda: (source.stamp(), source.read()))
        except (TimeoutError, OSError) as error:
            reason = str(error) or f"not read within {_READ:g} s"
            _log.warning(
                "secret_unreadable",
                endpoint=self._endpoint,
                login=self._name,
                reason=reason,
                hint="see whether the share it is on is there; the login stays as it was",
            )
            return False
        known = self.credentials.secret.get_secret_value()
        if secret is None or secret.get_secret_value() == known:
            return False
        self.credentials = replace(self.credentials, secret=secret)
        self._good_at, self._until = float("-inf"), 0.0
        _log.info("login_read_again", endpoint=self._endpoint, login=self._name)
        return True

    def _tell(self) -> None:
        self._events.emit(LoginJudged(self._endpoint, self._name, bool(self._why)))
        if self._notes is None:
            return
        until = self._clock.wall() + self._until - self._clock.monotonic() if self._why else 0.0
        self._notes.note(RefusedLogin(self._endpoint, self._name, self._why, until, self._stamp))

    async def listen(self) -> None:
        """Takes over what another process was told, and sees whether the secret was written anew
        while it rests: once a second, and off the event loop, since both are files. Nobody waits
        longer than a moment for it."""
        now = self._clock.monotonic()
        if self._listening is None or self._listening.done():
            if now < self._listen_at:
                return
            self._listen_at = now + _LISTEN_EVERY
            self._listening = asyncio.ensure_future(self._heard())
        await asyncio.wait([self._listening], timeout=max(0.0, self._listen_at - now - _LISTEN))

    async def _heard(self) -> None:
        source, notes = self.credentials.source, self._notes
        try:
            said, stamp = await self._disk.run(
                lambda: (notes.heard() if notes else None, source.stamp() if source else "")
            )
        except (TimeoutError, OSError):
            return
        now = self._clock.monotonic()
        if said is not None and not said.why:
            self._forget()
            self._events.emit(LoginJudged(self._endpoint, self._name, False))
        elif said is not None and said.secret == stamp != "":
            self._why, self._stamp = said.why, said.secret
            left = said.until - self._clock.wall()
            self._until = now + min(left, _LONGEST_REST)
            self._events.emit(LoginJudged(self._endpoint, self._name, True))
        if self._why and source is not None and stamp != self._stamp:
            self._until = now

    def _forget(self) -> None:
        self._why, self._rest, self._until = "", _FIRST_REST / 2, 0.0
