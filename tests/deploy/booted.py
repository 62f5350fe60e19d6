"""A machine with systemd as its first process: this one's programs, over which files are written
that nobody else sees, with processes, users' names and a network of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..e2e.programs import Program
from ..waiting import until

# Ours are the machine's kernel and devices: nothing that sets them is started.
_MASKED = (
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "docker.socket",
    "podman.socket",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
)

# Arguments: the control group, and the folder that is seen as /shared.
_BOOT = """
set -eu
mkdir "$1" && echo $$ >"$1/cgroup.procs"
exec unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc --net \
    sh -eu -c '
mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir upper work root && root=/mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work "$root"
mount -t proc proc "$root/proc"
mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom tty; do
    touch "$root/dev/$each" && mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir "$root/dev/pts" "$root/dev/shm" && ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/shared" && mount --bind "$2" "$root/shared"
units="$root/etc/systemd/system" && shift 2
for unit in "$@"; do ln -sf /dev/null "$units/$unit"; done
printf "[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n" >"$units/trial.target"
ip link set lo up
cd "$root" && mkdir -p mnt && pivot_root . mnt && umount -l /mnt
mount --make-rshared / # systemd does so itself where it is in no container
exec env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=trial.target --show-status=no
' sh "$@"
"""


@dataclass(frozen=True)
class Machine:
    """`shared` is seen as /shared there."""

    first: int  # the process id of its systemd, as seen from here
    shared: Path

    def argv(self, *words: str | Path, network: bool = True) -> list[str]:
        """The command that runs these words there; with `network` false, on this machine's
        network, where package indexes are."""
        spaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", *["--net"] * network]
        enter = ["nsenter", f"--target={self.first}", *spaces, "--", "env", "-i"]
        settings = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return [*enter, *settings, *(str(word) for word in words)]

    def run(self, *words: str | Path, network: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words, network=network),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,  # packages may be fetched on a busy machine
        )

    def do(self, *words: str | Path, network: bool = True) -> str:
        """As `run`; what it printed. Raises AssertionError with its words when it fails."""
        done = self.run(*words, network=network)
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def property(self, unit: str, name: str) -> str:
        return self.do("systemctl", "show", unit, f"--property={name}", "--value")

    def journal(self, unit: str) -> str:
        return self.do("journalctl", "--no-pager", "--output=cat", "--unit", unit)


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """Needs root, systemd, and a kernel that lets root mount."""
    groups = Path("/sys/fs/cgroup")
    if (groups / "unified").is_dir():  # beside the older hierarchies
        groups /= "unified"
    group = groups / f"trial-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="machine-", dir="/tmp") as folder:
        shared = Path(folder) / "shared"
        shared.mkdir()
        words = ["sh", "-c", _BOOT, "sh", str(group), str(shared), *_MASKED]
        program = Program(words, Path(folder) / "console.log")
        try:
            program.wait_until(lambda: _systemd_below(program) is not None, "systemd is started")
            first = _systemd_below(program)
            assert first is not None
            machine = Machine(first, shared)

            def is_up() -> bool:
                up = machine.run("systemctl", "is-active", "trial.target")
                return up.stdout.strip() == "active"

            program.wait_until(is_up, "systemd is up")
            yield machine
        finally:
            program.kill()
            until(lambda: "populated 0" in (group / "cgroup.events").read_text(), seconds=10)
            for each in sorted(group.rglob("*"), reverse=True):
                if each.is_dir():
                    each.rmdir()
            group.rmdir()


def _systemd_below(program: Program) -> int | None:
    """The shell that starts it has children of its own before."""
    number = program.process.pid
    for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None
