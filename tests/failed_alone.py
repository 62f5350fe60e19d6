"""Runs the tests once more, one by one, that failed last time: `python -m tests.failed_alone`.

A test that drives real programs beside others may be late on a full machine. One that fails alone
too is broken. With over ten failures nothing runs again: then it is not the machine.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

FAILED = Path(".pytest_cache/v/cache/lastfailed")  # where pytest writes them: its cacheprovider
MOST = 10


def main() -> int:
    found = list(json.loads(FAILED.read_text())) if FAILED.exists() else []
    # pytest-xdist adds the group of a test to its name.
    failed = [re.sub(r"@[\w-]+$", "", name) for name in found]
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} tests failed: none runs again (from 1 to {MOST} do)", file=sys.stderr)
        return 1
    print(f"{len(failed)} tests failed and run once more, alone:", *failed, sep="\n  ", flush=True)
    return int(pytest.main(["-n", "0", *failed]))


if __name__ == "__main__":
    raise SystemExit(main())
