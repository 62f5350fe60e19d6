"""Who a client is: by a password, a secret, or a token that was given for one of these."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping

from ..contracts.context import ANONYMOUS, Principal, PrincipalKind
from ..contracts.identity import (
    TOKEN_PREFIX,
    Action,
    IssuedToken,
    Refusal,
    Right,
    Rights,
    secret_hash,
)
from ..oci.scopes import CATALOG, CATALOG_ACTIONS
from .accounts import Accounts, RobotAccount, UserAccount
from .passwords import BcryptPasswords, TooManyLogins
from .throttle import LoginThrottle
from .tokens import Proven, Tokens
from .uses import Uses

REMEMBERED = 60.0
"""Seconds for which a password that was right is not hashed again: clients that show one with each
request."""

_MOST_REMEMBERED = 10_000
_LONGEST_NAME, _LONGEST_PASSWORD = 256, 4096  # characters: more is nobody's
_WORD = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
_NAME = re.compile(rf"{_WORD}(?:\+{_WORD})?")  # of a user, or a robot's login
_WRONG = "the name or the password is wrong"
_CROWDED = 5.0  # seconds
_ACTIONS = (Action.PULL, Action.PUSH, Action.DELETE)

Noted = Callable[[str, str, str], None]


class HostedAuthenticator:
    """An Authenticator by the records. It has no side but that failures slow down more of them (see
    throttle.py) and that `noted` is told of each login: who, from where, "" or why it was refused.
    """

    def __init__(
        self,
        accounts: Accounts,
        passwords: BcryptPasswords,
        tokens: Tokens,
        monotonic: Callable[[], float],
        noted: Noted,
        uses: Uses,
    ) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._tokens = tokens
        self._throttle = LoginThrottle(monotonic)
        self._proven = _ProvenLogins(monotonic)
        self._checks: dict[tuple[bytes, str], asyncio.Task[bool]] = {}
        self._noted = noted
        self._uses = uses

    async def authenticate(self, authorization: str | None, client: str) -> Principal | Refusal:
        if authorization is None:
            return ANONYMOUS
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            return await self._by_token(rest.strip())
        found = await self.prove(authorization, client)
        return found if isinstance(found, Refusal) else found.principal

    async def login(self, name: str, password: str, client: str) -> Principal | Refusal:
        found = await self._login(name, password, client)
        return found if isinstance(found, Refusal) else found.principal

    async def prove(self, authorization: str | None, client: str) -> Proven | Refusal:
        """By a Basic header alone; None: nobody."""
        if authorization is None:
            return Proven(ANONYMOUS)
        read = _read_basic(authorization)
        if read is None:
            return Refusal("the Authorization header is none that is known here")
        if read == ("", ""):  # `docker search`, where nobody is logged in
            return Proven(ANONYMOUS)
        return await self._login(*read, client)

    async def _login(self, name: str, password: str, client: str) -> Proven | Refusal:
        found = await self._look(name, password, client)
        if isinstance(found, Refusal):
            self._noted(name[:_LONGEST_NAME], client, found.reason)
        else:
            self._noted(found.principal.name, client, "")
        return found

    async def _look(self, name: str, password: str, client: str) -> Proven | Refusal:
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or not _is_sayable(password):
            return Refusal(_WRONG)  # nobody has such a name, whoever asks
        if "+" in name:
            return self._robot(name, await self._accounts.robot(name), secret_hash(password))
        user = await self._accounts.user(name)
        if password.startswith(TOKEN_PREFIX):
            return await self._access_token(name, user, secret_hash(password))
        return await self._password(name, user, password, client)

    # A secret of 256 bits is not guessed: these take no time, and are not slowed down.

    def _robot(self, login: str, account: RobotAccount | None, shown: bytes) -> Proven | Refusal:
        expected = bytes(len(shown)) if account is None else account.secret_hash
        if not hmac.compare_digest(expected, shown) or account is None:
            return Refusal(_WRONG)
        self._uses.robot(login)
        return Proven(Principal(login, PrincipalKind.ROBOT), _mark(account.secret_hash))

    async def _access_token(
        self, name: str, user: UserAccount | None, shown: bytes
    ) -> Proven | Refusal:
        token = await self._accounts.token(shown)
        if token is None or user is None or token.user != name:
            return Refusal(_WRONG)
        self._uses.token(token.id)
        return Proven(
            Principal(name, read_only=token.right is Right.PULL, by_token=True),
            f"token:{shown.hex()}",
        )

    async def _password(
        self, name: str, user: UserAccount | None, password: str, client: str
    ) -> Proven | Refusal:
        wait = self._throttle.wait(name, client)
        if wait > 0:
            return Refusal("too many logins failed: wait a moment", wait)
        hash = None if user is None else user.password_hash
        key = self._proven.key(name, password, hash)
        if not self._proven.has(key):
            try:
                is_right = await self._check(key, name, password, hash, client)
            except TooManyLogins:
                return Refusal("too many log in at once: wait a moment", _CROWDED)
            if not is_right:
                return Refusal(_WRONG)
        if hash is None:
            return Refusal(_WRONG)
        return Proven(Principal(name), _mark(hash.encode()))

    async def _check(
        self, key: bytes, name: str, password: str, hash: str | None, client: str
    ) -> bool:
        """Whether the password is right. Who shows the same meanwhile, as clients do that ask for
        many things at once, shares the answer. Raises TooManyLogins."""
        check = self._checks.get((key, client))
        if check is None:
            self._throttle.begin(name, client)
            check = asyncio.ensure_future(self._check_now(key, name, password, hash, client))
            self._checks[key, client] = check
            check.add_done_callback(lambda _: self._checks.pop((key, client), None))
        return await asyncio.shield(check)

    async def _check_now(
        self, key: bytes, name: str, password: str, hash: str | None, client: str
    ) -> bool:
        try:
            is_right = await self._passwords.check(password, hash, client)
        except BaseException:
            self._throttle.withdrawn(name, client)
            raise
        if is_right:
            self._throttle.succeeded(name, client)
            self._proven.add(key)
        return is_right

    async def _by_token(self, token: str) -> Principal | Refusal:
        proven = await self._tokens.read(token)
        if proven is None or not await self._is_good(proven):
            return Refusal("the token is not good, or not any more")
        # What anybody may do depends on no scope: the answer may be anybody's, too.
        is_nobody = proven.principal.kind is PrincipalKind.ANONYMOUS
        return ANONYMOUS if is_nobody else proven.principal

    async def _is_good(self, proven: Proven) -> bool:
        """Whether the login that a token was given for is good, still."""
        name, mark = proven.principal.name, proven.mark
        match proven.principal.kind:
            case PrincipalKind.ANONYMOUS:
                return True
            case PrincipalKind.ROBOT:
                robot = await self._accounts.robot(name)
                return robot is not None and mark == _mark(robot.secret_hash)
            case PrincipalKind.USER:
                user = await self._accounts.user(name)
                if user is None:
                    return False
                kind, colon, shown = mark.partition(":")
                if not colon:
                    return mark == _mark(user.password_hash.encode())
                token = await self._accounts.token(bytes.fromhex(shown))
                return kind == "token" and token is not None and token.user == name
        return False


class Realm:
    """A TokenRealm."""

    def __init__(self, authenticator: HostedAuthenticator, rights: Rights, tokens: Tokens) -> None:
        self._authenticator = authenticator
        self._rights = rights
        self._tokens = tokens

    @property
    def service(self) -> str:
        return self._tokens.service

    async def issue(
        self, authorization: str | None, asked: Mapping[str, frozenset[str]], client: str
    ) -> IssuedToken | Refusal:
        proven = await self._authenticator.prove(authorization, client)
        if isinstance(proven, Refusal):
            return proven
        granted = {
            name: await self._granted(proven.principal, name, actions)
            for name, actions in asked.items()
        }
        return await self._tokens.issue(proven, {name: may for name, may in granted.items() if may})

    async def _granted(
        self, principal: Principal, name: str, asked: frozenset[str]
    ) -> frozenset[str]:
        if name == CATALOG:
            return asked.intersection(CATALOG_ACTIONS)
        wanted = [each for each in _ACTIONS if each.value in asked or "*" in asked]
        may = self._rights.may
        return frozenset([each.value for each in wanted if await may(principal, each, name)])


class _ProvenLogins:
    """Passwords that were right a moment ago, under a hash that only this process can make. With
    another hash of the password in the records the key is another."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._secret = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def key(self, name: str, password: str, hash: str | None) -> bytes:
        parts = [part.encode() for part in (name, hash or "", password)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")

    def has(self, key: bytes) -> bool:
        return self._now() < self._until.get(key, 0.0)

    def add(self, key: bytes) -> None:
        self._until[key] = self._now() + REMEMBERED
        self._until.move_to_end(key)
        if len(self._until) > _MOST_REMEMBERED:
            self._until.popitem(last=False)


def _mark(hash: bytes) -> str:
    return hashlib.sha256(b"mark" + hash).hexdigest()[:32]


def _is_sayable(password: str) -> bool:
    """Whether it can be encoded: JSON may bring half of a character."""
    try:
        return len(password.encode()) <= _LONGEST_PASSWORD
    except UnicodeEncodeError:
        return False


def _read_basic(authorization: str) -> tuple[str, str] | None:
    """The name and the password (RFC 7617); None for anything else."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() != "basic" or len(rest) > 2 * _LONGEST_PASSWORD:
        return None
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None
