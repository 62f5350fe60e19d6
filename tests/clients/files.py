"""Files of a host that is only thought of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FakeFiles:
    texts: dict[str, str] = field(default_factory=dict)

    def read(self, path: Path) -> str | None:
        return self.texts.get(str(path))

    def below(self, folder: Path, suffix: str) -> Sequence[Path]:
        paths = (Path(path) for path in sorted(self.texts))
        return [path for path in paths if path.parent == folder and path.name.endswith(suffix)]
