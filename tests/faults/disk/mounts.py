"""Small and failing file systems, mounted for one test. They need root."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...e2e.programs import PATH, needs, run, unavailable


class Mounts:
    """What a test mounts. Use as a context: leaving unmounts all of it, the latest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounted: list[Path] = []

    def __enter__(self) -> Mounts:
        return self

    def __exit__(self, *_: object) -> None:
        while self._mounted:
            self.unmount(self._mounted[-1])

    def tmpfs(self, size: int, inodes: int = 0) -> Path:
        """A file system in memory of `size` bytes and so many inodes (0: as many as it likes)."""
        return self._mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=700", "none")

    def loop(self, image: Path, size: int) -> Path:
        """An ext4 of `size` bytes in a file. It has no journal and all its tables at the front, so
        that the file may lose what is behind."""
        needs("mkfs.ext4")
        with image.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", image)
        return self._mount("-o", "loop", str(image))

    def with_reserve(self, image: Path, size: int) -> Path:
        """As `loop`, with a part that is kept for others: whoever lacks CAP_SYS_RESOURCE finds the
        disk full while they can still write."""
        at = self.loop(image, size)
        self._run("-o", "remount,resuid=1", str(at))
        return at

    def read_only(self, path: Path) -> None:
        """From now on nothing can be written below `path`; files that are open stay so."""
        self._mount("--bind", str(path), at=path)
        self._run("-o", "remount,bind,ro", str(path))

    def writable_again(self, path: Path) -> None:
        self.unmount(path)

    def unmount(self, path: Path) -> None:
        """Lazily: a mirror may still have files open there."""
        self._mounted.reverse()
        self._mounted.remove(path)
        self._mounted.reverse()
        subprocess.run(["umount", "-l", path], check=True)

    def _mount(self, *arguments: str, at: Path | None = None) -> Path:
        if at is None:
            at = self._folder / f"mount{len(self._mounted)}"
            at.mkdir()
        self._run(*arguments, str(at))
        self._mounted.append(at)
        return at

    def _run(self, *arguments: str) -> None:
        if os.geteuid() != 0:
            unavailable("to run this test: be root, to mount a file system")
        program = shutil.which("mount", path=PATH)
        assert program is not None
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        if done.returncode:  # a container without the right to it
            unavailable(f"to run this test: be allowed to mount: {done.stderr.strip()}")


def fill_up(folder: Path) -> Path:
    """Takes all room of a file system; the file that did."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while room := _room(folder):
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, room)
            except OSError as error:  # others wrote meanwhile, and this allocates all or nothing
                if error.errno != errno.ENOSPC:
                    raise
    return ballast


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def without_reserve() -> Sequence[str]:
    """What is put before a command that may not take what is kept for others."""
    needs("setpriv")
    return ("setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource", "--")


def take_inodes(folder: Path, leave: int = 0) -> Path:
    """Takes the inodes of a file system but for so many; the folder that has them."""
    ballast = folder / "ballast"
    ballast.mkdir()
    number = 0
    while os.statvfs(folder).f_favail > leave:
        (ballast / str(number)).touch()
        number += 1
    return ballast


@contextlib.contextmanager
def given_back(ballast: Path) -> Iterator[None]:
    """Removes the ballast at the end, also when the test has failed."""
    try:
        yield
    finally:
        shutil.rmtree(ballast) if ballast.is_dir() else ballast.unlink()
