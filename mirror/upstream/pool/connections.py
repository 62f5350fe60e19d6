"""Connections to one host: never more than it bears, shared fairly between clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...contracts.context import Asker, left
from ...oci.errors import Unavailable
from ...places import Crowded, Places, Unwanted
from ...times import EXCHANGES, TURNS
from .question import Asked

_MOST_WAITING = 4096  # about


class Slots:
    """Turns at one host, whose endpoints share them fairly between clients, and between the kinds
    of what one client asks (see Places). A blob holds its own until its stream is closed, or asked
    to give way; blobs leave a few to small asks, which else would wait behind gigabytes. Lists,
    which some registries take minutes for, and no pull needs, leave half.
    """

    def __init__(self, name: str, limit: int, patience: float = EXCHANGES.connection) -> None:
        self._name = name
        self.limit = limit
        self._patience = patience
        most = {
            Asked.BLOB.value: max(1, limit - max(1, limit // 16)),
            Asked.LIST.value: max(1, limit // 2),
        }
        self._places = Places(
            limit,
            lambda group: most.get(group, limit),
            quantum=TURNS.quantum,
            most_waiting=_MOST_WAITING,
        )
        self.blobs_held = 0

    def free(self, asked: Asked) -> bool:
        return self._places.has_spare(asked.value)

    async def take(self, asker: Asker, asked: Asked, vain_turns: int = 0) -> Slot:
        """A slot for this asker, after so many turns without an answer. Raises Unavailable when
        there is none within `patience` seconds, nor before the asker's deadline; at once when
        no client waits for what is asked, or too many asks of the client wait."""
        slot, seconds = Slot(asker, asked, vain_turns), min(self._patience, left(asker))
        try:
            await self._places.take(slot, seconds)
        except (TimeoutError, Crowded, Unwanted) as reason:
            within = f" within {seconds:.0f} s" if isinstance(reason, TimeoutError) else ""
            raise Unavailable(
                f"all {self.limit} connections to {self._name} are in use, and none became free"
                f"{within}",
                retry_after=5,
            ) from None
        self.blobs_held += slot.is_blob
        return slot

    def give(self, slot: Slot) -> None:
        self._places.give(slot)
        self.blobs_held -= slot.is_blob
        slot.ends()


class Slot:
    """The place of one connection, a Claim."""

    def __init__(self, asker: Asker, asked: Asked, vain_turns: int) -> None:
        self._asker = asker
        self._asked = asked
        self.group = asked.value
        self.vain_turns = vain_turns
        self._gives_way: Callable[[], bool] | None = None

    @property
    def client(self) -> str:
        return self._asker.client

    @property
    def is_blob(self) -> bool:
        return self._asked is Asked.BLOB

    @property
    def is_wanted(self) -> bool:
        return self._asker.is_wanted

    def streams(self, gives_way: Callable[[], bool]) -> None:
        """From now on the slot is a stream's, which `gives_way` asks to leave: see
        Claim.give_back."""
        self._gives_way = gives_way

    def turn(self) -> asyncio.Timeout:
        """A context in which the holder works until it is asked to give way: then the context
        expires, and raises TimeoutError."""
        turn = asyncio.timeout(None)

        def gives_way() -> bool:
            if turn.expired():
                return False
            turn.reschedule(0.0)
            return True

        self._gives_way = gives_way
        return turn

    def ends(self) -> None:
        """Lets the holder go: a task that failed would else keep itself, and all its frames,
        until the next collection of cycles."""
        self._gives_way = None

    def give_back(self) -> bool:
        return self._gives_way is not None and self._gives_way()
