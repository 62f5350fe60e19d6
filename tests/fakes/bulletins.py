"""Bulletins of several nodes in memory: told at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

from mirror.contracts.bulletins import Words

Hear = Callable[[Words], None]


class FakeBoard:
    """`node()` is one node's Bulletins. `told` are the latest words on each subject."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.joined: list[tuple[object, str, Hear]] = []

    def node(self) -> _Node:
        return _Node(self)

    def tell(self, node: object, subject: str, words: Words) -> None:
        self.told[subject] = json.loads(json.dumps(words))
        for other, about, hear in list(self.joined):
            if other is not node and about == subject:
                with contextlib.suppress(ValueError, TypeError, LookupError):
                    hear(self.told[subject])


class _Node:
    def __init__(self, board: FakeBoard) -> None:
        self._board = board

    def join(self, subject: str, hear: Hear) -> _Bulletin:
        self._board.joined.append((self, subject, hear))
        return _Bulletin(self._board, self, subject)


class _Bulletin:
    def __init__(self, board: FakeBoard, node: _Node, subject: str) -> None:
        self._board, self._node, self._subject = board, node, subject

    def tell(self, words: Words, seconds: float) -> None:
        assert seconds > 0
        self._board.tell(self._node, self._subject, words)

    def mark(self, secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    def leave(self) -> None:
        self._board.joined = [each for each in self._board.joined if each[0] is not self._node]
