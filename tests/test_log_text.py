"""The log for people."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from mirror.app.log_control import lines_of, pull_line, settings_of
from mirror.config import Config
from mirror.config.log import LogConfig
from mirror.logs import LogSettings
from mirror.logs.text import line_of, printable

from .fakes.activity import pull_told

PROGRAM = """
import structlog
from mirror.app.log_control import settings_of
from mirror.config import Config
from mirror.logs import drain, log_as, log_json
log_json()
log_as(settings_of(Config()))
structlog.get_logger().warning("endpoint_steps_back", endpoint="hub", reason="it hangs")
structlog.get_logger().debug("step")
drain()
"""


def on_terminal(env: Mapping[str, str]) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reader:
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            stderr=theirs,
            check=True,
            timeout=60,
            env={**os.environ, **env},
        )
        os.close(theirs)
        return reader.read(4096).decode()


def test_on_a_terminal_the_log_is_text_with_colours_unless_they_are_not_wanted():
    plain = on_terminal({"NO_COLOR": "1"})
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d WARNING endpoint steps back  endpoint=hub reason="it hangs"\r\n', plain
    )
    coloured = on_terminal({"NO_COLOR": ""})
    assert "\x1b[33m" in coloured
    assert "step " not in coloured


def test_elsewhere_it_is_json():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.startswith('{"endpoint": "hub"')


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nfaked\u202egnp\u2066\x9b31m\u200b"


def test_what_others_write_does_nothing_to_a_terminal():
    line = line_of(
        {"event": HOSTILE, "level": "info", "agent": HOSTILE, HOSTILE: [HOSTILE]},
        is_coloured=False,
    )
    pull = pull_line(pull_told(client=HOSTILE, image=HOSTILE, failure=HOSTILE), is_coloured=False)
    assert line.isprintable()
    assert pull.isprintable()


def test_a_traceback_is_one_line():
    told = [
        {
            "exc_type": "OSError",
            "exc_value": "no\nroom",
            "frames": [{"filename": "/x/a.py", "lineno": 7}],
        }
    ]
    line = line_of({"event": "it_failed", "level": "error", "exception": told}, is_coloured=False)
    assert line.endswith("ERROR it failed  OSError: no\ufffdroom (/x/a.py:7)")


def test_long_words_are_cut():
    assert len(printable("x" * 10_000)) == 500


def test_a_pull_is_one_line():
    line = pull_line(pull_told(summary="HIT 5/5"), is_coloured=False)
    assert line.endswith("10.1.2.7 redis:7  HIT 5/5  12 MB  0.20 s")
    at_once = pull_line(pull_told(pulls=3, failure="ghcr.io (401)"), is_coloured=False)
    assert "redis:7 3 at once  MISS 1/5" in at_once
    assert at_once.endswith("(ghcr.io (401))")


@pytest.mark.parametrize(
    ("settings", "hits", "misses"),
    [
        (LogSettings(), True, True),
        (LogSettings(requests="misses"), False, True),
        (LogSettings(requests="none"), False, False),
        (LogSettings(level="warning"), False, False),
        (LogSettings(is_text=True), False, False),  # a pull has a line instead
    ],
)
def test_requests_that_have_a_line(settings, hits, misses):
    assert lines_of(settings) == {"hits": hits, "misses": misses}


def test_the_format_that_is_configured_counts_whatever_reads_it():
    config = Config(log=LogConfig(format="text", level="warning", requests="none"))
    assert settings_of(config) == LogSettings(True, "warning", "none")
