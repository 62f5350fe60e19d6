"""Runs once more, one by one, the tests that failed: `python -m tests.failed_alone [CACHE]`.

A test that drives real programs beside others may be late on a full machine. One that fails alone
too is broken. With over ten failures nothing runs again: then it is not the machine.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

FAILED = "v/cache/lastfailed"  # below its cache: where pytest writes them
MOST = 10


def main() -> int:
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else ".pytest_cache")
    file = cache / FAILED
    found = list(json.loads(file.read_text())) if file.exists() else []
    # pytest-xdist adds the group of a test to its name.
    failed = [re.sub(r"@[\w-]+$", "", name) for name in found]
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} tests failed: none runs again (from 1 to {MOST} do)", file=sys.stderr)
        return 1
    print(f"{len(failed)} tests failed and run once more, alone:", *failed, sep="\n  ", flush=True)
    return int(pytest.main(["-n", "0", "-o", f"cache_dir={cache}", *failed]))


if __name__ == "__main__":
    raise SystemExit(main())
