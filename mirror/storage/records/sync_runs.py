"""The last runs of the entries of `sync`: one small file beside the content."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import structlog

from ...contracts.sync import Run
from ...threads import aside
from ..owner import give

log = structlog.get_logger()

_NAME = "sync.json"
_VERSION = 1
_MAX_BYTES = 4 << 20
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_KINDS: dict[str, Any] = {
    "str": str,
    "float": (int, float),
    "int": int,
    "float | None": (int, float, type(None)),
}


class SyncRuns:
    """A RunRecords. A file that cannot be read is as good as none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    async def read(self) -> Mapping[str, Run]:
        return await aside(self._read)

    async def write(self, runs: Mapping[str, Run]) -> None:
        await aside(self._write, runs)

    def _read(self) -> Mapping[str, Run]:
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MAX_BYTES))
            if found["version"] != _VERSION:
                return {}
            return {str(key): _run(run) for key, run in found["runs"].items()}
        except FileNotFoundError:
            return {}
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            log.warning("sync_runs_not_known", path=str(self._path), reason=type(error).__name__)
            return {}

    def _write(self, runs: Mapping[str, Run]) -> None:
        """The file is replaced as a whole: no reader sees half of one."""
        new = self._path.with_name(f"{_NAME}.new")
        told = {"version": _VERSION, "runs": {key: asdict(run) for key, run in runs.items()}}
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                give(descriptor, new.parent)
                json.dump(told, file)
            os.replace(new, self._path)
        except OSError as error:
            log.warning("sync_runs_not_kept", path=str(self._path), reason=error.strerror)


def _run(found: dict[str, Any]) -> Run:
    """Raises what a record that is none leads to."""
    failures = [str(one) for one in found.pop("failures")]
    for field in fields(Run):
        kind = _KINDS.get(str(field.type))
        if kind is not None and not isinstance(found[field.name], kind):
            raise TypeError(field.name)
    return Run(**found, failures=failures)
