"""How far images are: bars on a terminal, and nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Shown:
    """A bar for each image that is under way, where the console is a terminal. Use as a context."""

    def __init__(self, console: Console, is_quiet: bool) -> None:
        self._progress: Progress | None = None
        self._bars: dict[tuple[str, str], TaskID] = {}
        if console.is_terminal and not is_quiet:
            self._progress = _progress(console)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def told(self, line: Mapping[str, Any]) -> None:
        """Something that a work tells."""
        if self._progress is None or line["told"] != "image_coming":
            return
        key = line["image"], line["platform"]
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(f"{key[0]} {key[1]}", total=line["size"])
        self._progress.update(self._bars[key], completed=line["here"], total=line["size"])

    @contextlib.contextmanager
    def ended(self, line: Mapping[str, Any]) -> Iterator[None]:
        """The image is under way no more, and a line is printed meanwhile: no bar is in its way."""
        if self._progress is None:
            yield
            return
        bar = self._bars.pop((line["image"], line["platform"]), None)
        if bar is not None:
            self._progress.remove_task(bar)
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


def _progress(console: Console) -> Progress:
    # Only here: a server draws no bars, and is to start quickly and be small.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # else what is printed there would go to standard error
        redirect_stderr=False,
    )
