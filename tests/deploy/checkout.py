"""What is installed from this checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_PARTS = ("mirror", "mirror.yaml", "deploy", "pyproject.toml", "README.md", "LICENSE")


def copy_of_checkout(root: Path, copy: Path) -> Path:
    """Copies what git has of it, or would have: no bytecode, no environment."""
    words = ["git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard", *_PARTS]
    listed = subprocess.run(words, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, copy / name)
    return copy
