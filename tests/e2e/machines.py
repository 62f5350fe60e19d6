"""Where a program runs, and how the network looks from there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .certificates import HUB_NAMES
from .programs import PATH, loopback_address

# In a mount namespace of its own: binds what is to differ, then becomes the program.
_HERE = 'mount --bind "$0" /etc/hosts && exec "$@"'
_BESIDE = """
root=$1 && shift
mount --bind "$root" "$root"
for shared in proc sys dev tmp; do mount --rbind "/$shared" "$root/$shared" || exit; done
mount --bind "$0" "$root/etc/hosts" && export PATH=/usr/sbin:/usr/bin && exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Hosts:
    """How a program's machine sees the network: where Docker Hub is, and whom TLS trusts."""

    hub: str
    authority: Path | None = None

    def environment(self) -> dict[str, str]:
        """What programs of Go and of Python heed."""
        trusted = {"SSL_CERT_FILE": str(self.authority)} if self.authority else {}
        return {"PATH": PATH, **trusted}

    def write(self, path: Path) -> Path:
        path.write_text(f"127.0.0.1 localhost\n{self.hub} {' '.join(HUB_NAMES)} index.docker.io\n")
        return path


def no_hub() -> Hosts:
    """Docker Hub's names lead where nobody listens: going there fails at once, and is seen."""
    return Hosts(loopback_address())


@dataclass(frozen=True)
class Machine:
    """Where programs are: on this system, or in another suite's root beside it."""

    hosts: Path
    root: Path | None = None

    def argv(self, *words: str | Path) -> list[str]:
        """The command that runs these words there.

        Only root may mount: another user's client sees the machine's own /etc/hosts.
        """
        if os.geteuid() != 0:
            return [str(word) for word in words]
        namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        inside = [_BESIDE, self.hosts, self.root] if self.root else [_HERE, self.hosts]
        return [str(word) for word in (*namespace, *inside, *words)]
