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
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NoReturn

import structlog

from ...clock import Clock
from ...contracts.accounts import Notes, RefusedLogin
from ...contracts.bulletins import Bulletin, Bulletins, Words
from ...contracts.events import LoginJudged
from ...events import Events
from ...oci.errors import Unavailable, Untrustworthy
from ..endpoint import Configured, Credentials, GivenToken, HelperLogin, NoLogin
from ..failures import LoginRefused
from .sources import Source

_log = structlog.get_logger()

_FIRST_REST = 60.0  # seconds, doubled with each refusal in a row
_LONGEST_REST = 900.0
_BELIEVED = 60.0  # seconds for which a login that was good is not suspected
_PROVEN_EVERY = 5.0  # where that says nothing, since the realm has trouble
_LISTEN_EVERY = 1.0
_LISTEN = 0.5  # seconds that requests wait for what is seldom news

Proof = Callable[[Credentials], Awaitable[str | None]]
"""Shows these by themselves. Returns what refuses them, in words; None: they are good. Raises
Unavailable."""


def name_of(login: Configured | None) -> str:
    """What metrics and messages call it."""
    if login is None:
        return ""
    if isinstance(login, HelperLogin):
        return login.name
    return "token" if isinstance(login, GivenToken) else login.username


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
    """One login at one endpoint. `credentials` are as they have been read last; None: the program
    that tells them was not asked yet. `notes` tell other processes of a refusal."""

    def __init__(
        self,
        endpoint: str,
        configured: Configured,
        clock: Clock,
        events: Events,
        notes: Notes | None = None,
        registry: str = "",
    ) -> None:
        self._registry = registry
        self.configured = configured
        self.credentials: Credentials | None = (
            None if isinstance(configured, HelperLogin) else configured
        )
        self.is_given = isinstance(configured, GivenToken)
        """Whether it is shown to the registry as it is, and to no realm."""
        self.name = name_of(configured)
        self._endpoint = endpoint
        self._source = Source(endpoint, self.name, configured, clock)
        self.place = self._source.place
        self._clock = clock
        self._events = events
        self._notes = notes
        self._listen_at = float("-inf")
        self._listening: asyncio.Future[None] | None = None
        self.is_proven = False  # whether the login was good once
        self._good_at = float("-inf")
        self._is_tried = False  # whether that was tried, whatever came of it
        self._why = ""  # what refuses the login, in words
        self._rest = _FIRST_REST / 2
        self._until = 0.0  # monotonic: until when it rests, or is not tried again by itself
        self._deciding = asyncio.Lock()
        self._renewing: asyncio.Future[None] | None = None
        self._elsewhere: Bulletin | None = None
        self._said: Words | None = None  # by another node, as yet unread

    def share(self, elsewhere: Bulletins, subject: str) -> None:
        """From now on other nodes are told of a refusal, and tell it: of the same secret."""
        self._elsewhere = elsewhere.join(subject, self._hear)

    def leave(self) -> None:
        if self._elsewhere is not None:
            self._elsewhere.leave()

    def _hear(self, words: Words) -> None:
        self._said = words

    @property
    def mend(self) -> str:
        """What the operator has to do where the login is refused."""
        return self._source.mend

    def rests(self) -> bool:
        """Whether the login is refused, and not to be shown now, as far as `listen` has heard."""
        return bool(self._why) and self._clock.monotonic() < self._until

    def refusal(self) -> LoginRefused | None:
        """The error that says that the login is refused; None: it is not."""
        return self._refusal() if self._why else None

    def _refusal(self) -> LoginRefused:
        seconds = max(0.0, self._until - self._clock.monotonic())
        at = datetime.fromtimestamp(self._clock.wall() + seconds, UTC)
        again = self._source.again(f"{at:%Y-%m-%d %H:%M:%S} UTC")
        return LoginRefused(f"{self._why}; {again}")

    async def admitted(self, prove: Proof) -> Credentials:
        """What to show. Raises LoginRefused while the login rests; the first ask after that finds
        out whether it is good by now."""
        return await self._admit(prove)

    async def proven(self, prove: Proof) -> Credentials:
        """As `admitted`, for a login that is shown with each request: it is proven before the
        first."""
        await self._admit(prove)
        if not self._is_tried:
            async with self._deciding:
                if not self._is_tried:
                    await self._decide(prove)
        return await self._admit(prove)

    async def _admit(self, prove: Proof) -> Credentials:
        """Where the login has rested, or is not known, one ask finds out what it is, and whether it
        is good, for all that come meanwhile."""
        if self.credentials is not None and not self._why:
            self._renew_if_old()
            return self.credentials
        async with self._deciding:
            if self.rests():
                raise self._refusal()
            if self.credentials is None:
                await self._find_out()
            elif self._why:
                await self._read_again()
            if self._why:
                await self._decide(prove)
            assert self.credentials is not None  # noqa: S101 - or NoLogin had been raised
            return self.credentials

    async def _find_out(self) -> None:
        try:
            self.credentials = await self._source.read(None)
        except NoLogin as error:
            self._give_rest(str(error))
            raise self._refusal() from error
        await self._heard()
        if self.rests():
            raise self._refusal()

    def _renew_if_old(self) -> None:
        if self._source.is_old() and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        """Behind those who are shown the login as it was."""
        known = self.credentials
        found = await self._source.read(known)
        if self.credentials == known:
            self._take(found)

    def was_good(self) -> None:
        """The login was shown, and accepted."""
        self.is_proven = True
        self._good_at = self._clock.monotonic()
        if self._why:
            self._forget()
            _log.info("login_is_good_again", endpoint=self._endpoint, login=self.name)
            self._tell()

    async def was_refused(self, shown: Credentials, prove: Proof, who: str) -> bool:
        """The login was shown, and refused by `who`, in words. Whether to ask once more, since it
        is another one by now. False: what it was shown for is not for it. Raises LoginRefused when
        it is no good, and when it was never good and that cannot be found out."""
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
                if not self.is_proven:
                    self._refuse(who)
            return False

    async def _decide(self, prove: Proof) -> None:
        """Finds out whether the login is good. Raises LoginRefused."""
        assert self.credentials is not None  # noqa: S101 - nobody has shown what is not known
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
        self._refuse(who)

    def _refuse(self, who: str) -> NoReturn:
        what = "the configured token" if self.is_given else f"the login {self.name!r}"
        self._give_rest(f"{who} refuses {what}")
        raise self._refusal()

    def _give_rest(self, why: str) -> None:
        if not self._why:  # said once, not by each trial
            _log.warning(
                "login_refused",
                endpoint=self._endpoint,
                login=self.name,
                place=self.place,
                reason=why,
                hint=f"{self._source.mend}. Until then what is public is asked for without a login",
            )
        self._why = why
        self._rest = min(self._rest * 2, _LONGEST_REST)
        self._until = self._clock.monotonic() + self._rest
        self._tell()

    async def _read_again(self) -> bool:
        """Has the login from where it is kept; whether it is another one by now."""
        return self._take(await self._source.read(self.credentials))

    def _take(self, found: Credentials | None) -> bool:
        if found == self.credentials:
            return False
        self.credentials = found
        self.is_proven = self._is_tried = False
        self._good_at, self._until = float("-inf"), 0.0
        _log.info("login_read_again", endpoint=self._endpoint, login=self.name)
        return True

    def _tell(self) -> None:
        self._judge(bool(self._why))
        self._tell_elsewhere()
        if self._notes is None:
            return
        until = self._clock.wall() + self._until - self._clock.monotonic() if self._why else 0.0
        source = self._source
        self._notes.note(
            RefusedLogin(self._endpoint, self.name, self._why, until, source.stamp, source.mend)
        )

    def _tell_elsewhere(self) -> None:
        if self._elsewhere is None or self.credentials is None:
            return
        left = self._until - self._clock.monotonic() if self._why else _BELIEVED
        words = {
            "why": self._why,
            "until": self._clock.wall() + left,
            "secret": self._elsewhere.mark(self.credentials.secret.get_secret_value()),
        }
        self._elsewhere.tell(words, left)

    def _take_over(self, words: Words, stamp: str) -> None:
        """What another node was told of the same secret. Raises ValueError, TypeError and
        LookupError for words of another version."""
        if self._elsewhere is None or self.credentials is None:
            return
        if words["secret"] != self._elsewhere.mark(self.credentials.secret.get_secret_value()):
            return
        why, left = str(words["why"]), float(words["until"]) - self._clock.wall()
        if why and left > 0:
            self._why, self._source.stamp = why, stamp
            self._until = self._clock.monotonic() + min(left, _LONGEST_REST)
            self._judge(True)
        elif not why and self._why:
            self._forget()
            self._judge(False)

    async def listen(self) -> None:
        """Takes over what another process was told, and sees whether the secret was written anew
        while it rests: once a second, and off the event loop, since both are files. Nobody waits
        longer than a moment for it."""
        if self._notes is None and self._said is None and not self._why:
            return
        now = self._clock.monotonic()
        if self._listening is None or self._listening.done():
            if now < self._listen_at:
                return
            self._listen_at = now + _LISTEN_EVERY
            self._listening = asyncio.ensure_future(self._heard())
        await asyncio.wait([self._listening], timeout=max(0.0, self._listen_at - now - _LISTEN))

    async def _heard(self) -> None:
        heard = await self._source.heard(self._notes, self.credentials)
        if heard is None:
            return
        said, stamp = heard
        now = self._clock.monotonic()
        if said is not None and not said.why:
            self._forget()
            self._judge(False)
        elif said is not None and said.secret == stamp != "":
            self._why, self._source.stamp = said.why, said.secret
            left = said.until - self._clock.wall()
            self._until = now + min(left, _LONGEST_REST)
            self._judge(True)
        elsewhere, self._said = self._said, None
        if elsewhere is not None:
            with contextlib.suppress(ValueError, TypeError, LookupError):
                self._take_over(elsewhere, stamp)
        if self._why and stamp != self._source.stamp:
            self._until = now

    def _judge(self, is_refused: bool) -> None:
        why = self._why if is_refused else ""
        self._events.emit(LoginJudged(self._registry, self._endpoint, self.name, is_refused, why))

    def look_again(self) -> None:
        """Ends the rest of a login that a program tells: the operator may have seen to that."""
        if isinstance(self.configured, HelperLogin):
            self._until = 0.0

    def _forget(self) -> None:
        self._why, self._rest, self._until = "", _FIRST_REST / 2, 0.0
