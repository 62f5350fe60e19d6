"""What the page and the API show, and what they have done: the objects that commands use too."""

from __future__ import annotations

from collections.abc import Callable

from ...contracts.activity import Activity
from ...contracts.images import CachedImages
from ...frozen import dataclass
from ..control import Command


@dataclass(frozen=True, slots=True)
class Console:
    """`commands`: those of the control socket, by their names. `scheme`: by which clients ask the
    mirror's port."""

    activity: Activity
    images: CachedImages
    command_of: Callable[[str], Command | None]
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Admission:
    """As `admin` of mirror.yaml has it by now. `token` None: whoever can connect may see all."""

    token: str | None = None
    write: bool = False


Admissions = Callable[[], Admission]
