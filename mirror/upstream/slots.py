"""Never more connections to one host than it bears."""

from __future__ import annotations

from collections.abc import Callable

from ..interfaces import CLIENT
from ..oci.errors import Unavailable
from ..places import Crowded, Places, Unwanted

_BLOB, _SMALL = "blob", "small"
_QUANTUM = 2.0  # seconds; to go on over another connection costs some round trips
_MOST_WAITING = 4096  # about


class Slots:
    """Turns at one host, whose endpoints share them fairly between clients (see Places). A blob
    holds its own until its stream is closed, or asked to give way; blobs leave a few to small asks,
    which else would wait behind gigabytes.
    """

    def __init__(self, name: str, limit: int, patience: float = 60.0) -> None:
        self._name = name
        self.limit = limit
        self._patience = patience
        for_blobs = max(1, limit - max(1, limit // 16))
        self._places = Places(
            limit,
            lambda group: for_blobs if group == _BLOB else limit,
            quantum=_QUANTUM,
            most_waiting=_MOST_WAITING,
        )
        self.blobs_held = 0

    def free(self, blob: bool) -> bool:
        return self._places.has_spare(_BLOB if blob else _SMALL)

    async def take(self, blob: bool) -> Slot:
        """For whose work this is (see CLIENT). Raises Unavailable when there is none within
        `patience` seconds, at once when nobody waits for this or too many of its client's wait."""
        slot = Slot(blob)
        try:
            await self._places.take(slot, self._patience)
        except (TimeoutError, Crowded, Unwanted) as reason:
            within = f" within {self._patience:g} s" if isinstance(reason, TimeoutError) else ""
            raise Unavailable(
                f"all {self.limit} connections to {self._name} are in use, and none became free"
                f"{within}",
                retry_after=5,
            ) from None
        self.blobs_held += blob
        return slot

    def give(self, slot: Slot) -> None:
        self._places.give(slot)
        self.blobs_held -= slot.is_blob


class Slot:
    """One connection's place, a Claim."""

    def __init__(self, is_blob: bool) -> None:
        self.is_blob = is_blob
        self._asker = CLIENT.get()
        self._gives_way: Callable[[], bool] | None = None

    @property
    def client(self) -> str:
        return self._asker.client

    @property
    def group(self) -> str:
        return _BLOB if self.is_blob else _SMALL

    @property
    def is_wanted(self) -> bool:
        return self._asker.is_wanted

    def is_of(self, gives_way: Callable[[], bool]) -> None:
        """From now on its holder can be asked to give way: see Claim.give_back."""
        self._gives_way = gives_way

    def give_back(self) -> bool:
        return self._gives_way is not None and self._gives_way()
