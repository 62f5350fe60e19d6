"""Runs once more, one by one, the tests that failed: `python -m tests.failed_alone [CACHE]`.

A test that drives real programs beside others may be late on a full machine. One that fails alone
too is broken. With over ten failures nothing runs again: then it is not the machine. Of tests that
were not set up, those of one module count as one: what they share failed once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

FAILED = "v/cache/lastfailed"  # below its cache: where pytest writes them
NOT_SET_UP = "tests/not_set_up"  # which of them, by tests/conftest.py
MOST = 10


def main() -> int:
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else ".pytest_cache")
    failed = sorted(map(_name, _read(cache / FAILED)))
    count = failures(failed, set(map(_name, _read(cache / "v" / NOT_SET_UP))))
    print(f"{len(failed)} tests failed, by {count} failures", file=sys.stderr)
    if not 0 < count <= MOST:
        print(f"none runs again: from 1 to {MOST} failures do", file=sys.stderr)
        return 1
    print("They run once more, alone:", *failed, sep="\n  ", flush=True)
    return int(pytest.main(["-n", "0", "-o", f"cache_dir={cache}", *failed]))


def failures(failed: Iterable[str], not_set_up: set[str]) -> int:
    """How many there were, by the names of the tests."""
    return len({name.partition("::")[0] if name in not_set_up else name for name in failed})


def _read(file: Path) -> Iterable[Any]:
    return json.loads(file.read_text()) if file.exists() else ()


def _name(told: str) -> str:
    """Without the group of the test, which pytest-xdist adds."""
    return re.sub(r"@[\w-]+$", "", told)


if __name__ == "__main__":
    raise SystemExit(main())
