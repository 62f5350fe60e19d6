"""How fast somebody may guess passwords.

Failures are counted in three ways. Of an account from one address: for who guesses one password.
Of an address, the accounts that failed from it: for who tries one password with many names; a
client that is set up wrong fails with one, and holds up no other behind the same address. Of an
account, the addresses that it failed from: for who guesses from many; that holds up nobody at an
address from which the account has logged in before, so an attacker locks no owner out.

Each process counts for itself: with N workers or nodes somebody may guess N times as fast, which is
N guesses a minute. What is shared would be written to by whoever sends a wrong password.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from ..asking.fair_table import FairTable

LONGEST = 60.0
"""Seconds between two guesses at the slowest: the longest Retry-After that clients wait for."""

_FORGOTTEN = 900.0  # seconds without a failure
_FREE = 5  # failures of an account from one address before any wait
_FREE_ACCOUNTS = 20  # that fail from one address
_FREE_ADDRESSES = 10  # from which one account fails
_MOST = 16_384  # of each table

K = TypeVar("K", bound=Hashable)


class _Failed(NamedTuple):
    times: int
    at: float


class LoginThrottle:
    """`account` is a name as a client says it, whether there is such an account or not; `client` a
    network (see mirror/server/http/networks.py)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._pairs: FairTable[str, _Failed] = FairTable(_MOST)  # of each client its part
        self._proven: FairTable[str, bool] = FairTable(_MOST)  # of each account its part
        self._clients: _Counts[str] = _Counts()
        self._accounts: _Counts[str] = _Counts()

    def wait(self, account: str, client: str) -> float:
        """The seconds until a login is looked at, 0 for at once. Not even one that is known to be
        right is before: else a guess that is right would be told from others."""
        now = self._now()
        wait = _wait(_lately(self._pairs.get(client, account), now), _FREE, now)
        if self._proven.get(account, client) is None:
            of_client = _wait(_lately(self._clients.get(client), now), _FREE_ACCOUNTS, now)
            of_account = _wait(_lately(self._accounts.get(account), now), _FREE_ADDRESSES, now)
            wait = max(wait, of_client, of_account)
        return wait

    def begin(self, account: str, client: str) -> None:
        """A login is looked at, for which there is no `wait`. It counts as a failure until it has
        `succeeded`, so that a hundred at once are not one."""
        now = self._now()
        pair = _lately(self._pairs.get(client, account), now)
        self._pairs.put(client, account, _Failed(pair.times + 1, now))
        self._clients.add(client, int(pair.times == 0), now)
        self._accounts.add(account, int(pair.times == 0), now)

    def succeeded(self, account: str, client: str) -> None:
        self._proven.put(account, client, True)
        self._forget(account, client)

    def withdrawn(self, account: str, client: str) -> None:
        """What had begun was not looked at after all."""
        pair = self._pairs.get(client, account)
        if pair is not None and pair.times > 1:
            self._pairs.put(client, account, pair._replace(times=pair.times - 1))
        else:
            self._forget(account, client)

    def _forget(self, account: str, client: str) -> None:
        now = self._now()
        self._pairs.drop(client, account)
        self._clients.add(client, -1, now)
        self._accounts.add(account, -1, now)


class _Counts(Generic[K]):
    """At most _MOST; of too many the one goes that failed the longest ago."""

    def __init__(self) -> None:
        self._found: OrderedDict[K, _Failed] = OrderedDict()

    def get(self, key: K) -> _Failed | None:
        return self._found.get(key)

    def add(self, key: K, more: int, now: float) -> None:
        count = _lately(self._found.get(key), now).times + more
        if count <= 0:
            self._found.pop(key, None)
            return
        self._found[key] = _Failed(count, now)
        self._found.move_to_end(key)
        if len(self._found) > _MOST:
            self._found.popitem(last=False)


def _lately(failed: _Failed | None, now: float) -> _Failed:
    return _Failed(0, now) if failed is None or now - failed.at > _FORGOTTEN else failed


def _wait(failed: _Failed, free: int, now: float) -> float:
    beyond = failed.times - free
    if beyond < 0:
        return 0.0
    pause: float = min(2.0 ** min(beyond, 16), LONGEST)
    return max(0.0, failed.at + pause - now)
