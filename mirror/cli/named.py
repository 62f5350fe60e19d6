"""What commands are told by name: images, lists of them, platforms. Mistakes end the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..sync import lists
from .console import CONFIGURATION_WRONG, give_up


def names_of(texts: Sequence[str]) -> list[str]:
    """These names, and in the place of `@list.txt` (or `@-`, standard input) those of the list."""
    return [name for text in texts for name in _names_of(text)]


def _names_of(text: str) -> Sequence[str]:
    if not text.startswith("@"):
        return [text]
    try:
        if text == "@-":
            data = sys.stdin.buffer.read(lists.MOST_BYTES + 1)
        else:
            with Path(text[1:]).open("rb") as file:
                data = file.read(lists.MOST_BYTES + 1)
        if len(data) > lists.MOST_BYTES:
            words = f"{text}: a list has at most {lists.MOST_BYTES >> 20} MiB"
            raise give_up(words, CONFIGURATION_WRONG)
        read = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise give_up(f"{text}: {error}", CONFIGURATION_WRONG) from None
    return [name for _, name in lists.names(read)]


def platforms_of(given: Sequence[str]) -> list[str]:
    """Each once, as `--platform` was given."""
    for name in given:
        if name != "all" and name.count("/") not in (1, 2):
            words = f"--platform {name}: write one such as linux/arm64, or all"
            raise give_up(words, CONFIGURATION_WRONG)
    return list(dict.fromkeys(given))
