"""What the processes of one node know of their logins: small files beside the content.

They outlive the processes: a mirror that starts anew, perhaps again and again, does not show an
endpoint a password that it has just refused: registries lock out addresses that do. Four workers
showed a wrong one 6 times, and never after a restart; without these files, 8 times after each.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from ...contracts.accounts import RefusedLogin
from ...threads import Threads
from ..owner import give

log = structlog.get_logger()

_VERSION = 2
_MAX_BYTES = 4096
_MOST_LOGINS = 1000  # that are read for people


class AccountRecords:
    """AccountNotes of all logins that are configured, a file for each. Close it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = Threads(1, "accounts")

    def login(self, account: str) -> _Notes:
        name = f"login-{hashlib.sha256(account.encode()).hexdigest()[:32]}.json"
        return _Notes(self._folder / name, account, self._threads)

    def close(self) -> None:
        """Ends when all that was noted is written."""
        self._threads.close()


def refused_logins(folder: Path) -> Sequence[RefusedLogin]:
    """The logins that are refused by now, as far as this user may know."""
    found = []
    for path in sorted(folder.glob("login-*.json"))[:_MOST_LOGINS]:
        try:
            with path.open("rb") as file:
                record = _decode(file.read(_MAX_BYTES + 1))
        except OSError:
            continue
        if record is not None and record.why:
            found.append(record)
    return found


class _Notes:
    def __init__(self, path: Path, account: str, threads: Threads) -> None:
        self._path = path
        self._account = account
        self._threads = threads
        self._me = secrets.token_hex(8)
        self._seen: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._unwritten: RefusedLogin | None = None
        self._well = True

    def heard(self) -> RefusedLogin | None:
        try:
            found = os.stat(self._path)
            seen = (found.st_ino, found.st_mtime_ns)
            if seen == self._seen:
                return None
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError:
            return None
        self._seen = seen
        return _decode(data, self._account, self._me)

    def note(self, record: RefusedLogin) -> None:
        with self._lock:
            waiting, self._unwritten = self._unwritten, record
        if waiting is None:  # else the one that waits for its turn takes this along
            try:
                self._threads.begin(self._write)
            except RuntimeError:  # it was closed
                self._unwritten = None

    def _write(self) -> None:
        """On the thread. The file is replaced as a whole: no reader sees half of one."""
        with self._lock:
            record, self._unwritten = self._unwritten, None
        if record is None:
            return
        fields = {"version": _VERSION, "account": self._account, "by": self._me, **asdict(record)}
        new = self._path.with_name(f"{self._path.name}.{self._me}")
        try:
            try:
                descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "w", encoding="ascii") as file:
                    give(descriptor, new.parent)
                    json.dump(fields, file)
                os.replace(new, self._path)
            finally:
                new.unlink(missing_ok=True)
        except OSError as error:
            if self._well:  # said once, not by each answer
                log.warning("account_not_shared", path=str(self._path), reason=str(error))
            self._well = False
        else:
            self._well = True


def _decode(data: bytes, account: str | None = None, me: str = "") -> RefusedLogin | None:
    """The record, if it is of this account (None: of any) and another wrote it; None for anything
    else whatsoever."""
    if len(data) > _MAX_BYTES:
        return None
    try:
        fields = json.loads(data)
        if fields["version"] != _VERSION or fields["by"] == me:
            return None
        if account is not None and fields["account"] != account:
            return None
        return _login(fields)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def _login(fields: dict[str, Any]) -> RefusedLogin:
    return RefusedLogin(
        endpoint=str(fields["endpoint"]),
        login=str(fields["login"]),
        why=str(fields["why"]),
        until=_seconds(fields["until"]),
        secret=str(fields["secret"]),
        mend=str(fields["mend"]),
    )


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)
