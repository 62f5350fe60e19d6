"""The stream that the log goes through: it returns at once, raises nothing, and keeps order."""

from __future__ import annotations

import ast
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import mirror
from mirror.logs import LogStream
from mirror.logs import stream as stream_module

from .waiting import eventually


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue


def read(descriptor: int, count: int) -> list[str]:
    """So many lines."""
    data = b""
    while data.count(b"\n") < count:
        assert select.select([descriptor], [], [], 10)[0], f"after 10 s there is only {data!r}"
        data += os.read(descriptor, 1 << 16)
    return data.decode().splitlines()


def fill(writing: int) -> int:
    """Until the pipe takes nothing; returns the bytes."""
    os.set_blocking(writing, False)
    count = 0
    try:
        while True:
            count += os.write(writing, b"x" * select.PIPE_BUF)
    except BlockingIOError:
        os.set_blocking(writing, True)
        return count


def take(reading: int, count: int) -> None:
    while count:
        count -= len(os.read(reading, count))


def test_lines_keep_their_order_and_the_last_are_written_at_the_end(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])
    for number in range(500):
        stream.write(f"{number}\n")
    stream.drain()
    assert read(pipe[0], 500) == [str(number) for number in range(500)]


def test_lines_of_several_threads_are_whole(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])

    def write(name: str) -> None:
        for number in range(200):
            stream.write(f"{name} {number}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    lines = read(pipe[0], 800)
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name} {n}" for n in range(200)]
    stream.drain()


async def test_what_there_is_no_room_for_is_dropped_and_told(pipe: tuple[int, int]) -> None:
    full = fill(pipe[1])
    stream = LogStream(pipe[1], most=1000)
    line = "x" * 99 + "\n"
    stream.write(line)
    await eventually(lambda: stream._size == 0)  # the thread has it, and waits for the pipe
    for _ in range(15):
        stream.write(line)
    assert stream.dropped == 5
    take(pipe[0], full)
    lines = read(pipe[0], 12)
    stream.write("after\n")
    stream.drain()
    lines += read(pipe[0], 1)
    assert lines[:11] == [line[:-1]] * 11
    told = json.loads(lines[11])
    assert (told["event"], told["lines"], told["level"]) == ("log_lines_dropped", 5, "warning")
    assert lines[12:] == ["after"]
    assert stream.dropped == 5


def test_the_end_does_not_wait_for_a_reader_who_never_comes(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    stream = LogStream(pipe[1], patience=0.05)
    stream.write("unread\n")
    stream.drain()
    os.close(pipe[0])  # the thread is let go


def test_the_end_waits_once_however_often_it_is_asked(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process waits when its command ends, and once more when Python does."""
    fill(pipe[1])
    stream = LogStream(pipe[1], patience=2)
    stream.write("unread\n")
    slept = [0.0]
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr("mirror.logs.stream.time", clock)
    stream.drain()
    assert sum(slept) == pytest.approx(2, abs=0.1)
    stream.drain()
    assert sum(slept) == pytest.approx(2, abs=0.1)
    os.close(pipe[0])


@pytest.mark.parametrize("path", ["/dev/full", "closed"])
async def test_what_cannot_be_written_is_dropped_and_counted(path: str) -> None:
    descriptor = os.open("/dev/full" if path == "/dev/full" else os.devnull, os.O_WRONLY)
    if path == "closed":
        os.close(descriptor)
        descriptor += 10_000
    stream = LogStream(descriptor)
    assert stream.write("one\n") == 4
    stream.write("two\nthree\n")
    await eventually(lambda: stream.dropped == 3)
    stream.drain()


def test_a_line_that_was_written_in_part_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, limit = os.write, [7]

    def write(descriptor: int, data: bytes) -> int:
        """A disk that is full after so many bytes, until somebody makes room."""
        if limit[0] == 0:
            limit[0] = 1000
            raise OSError(28, "No space left on device")
        count = real(descriptor, data[: limit[0]])
        limit[0] -= count
        return count

    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(os, "write", write)
    stream = LogStream(descriptor)
    stream.write("first\nsecond\n")
    stream.drain()
    stream.write("third\n")
    stream.drain()
    os.close(descriptor)
    first, part, third, told = file.read_text().splitlines()
    assert (first, part, third) == ("first", "s", "third")
    assert json.loads(told)["lines"] == stream.dropped == 1


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    full = fill(pipe[1])
    os.set_blocking(pipe[1], False)
    stream = LogStream(pipe[1])
    stream.write("late\n")
    take(pipe[0], full)
    assert read(pipe[0], 1) == ["late"]
    stream.drain()


def test_pieces_are_whole_lines_as_many_as_a_pipe_takes_undivided() -> None:
    lines = [b"x" * 300 + b"\n"] * 50 + [b"y" * 9000 + b"\n"] + [b"z\n"] * 3 + [b"no end"]
    pieces = list(stream_module._pieces(b"".join(lines), select.PIPE_BUF))
    assert b"".join(pieces) == b"".join(lines)
    assert len(pieces) < 10
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert all(len(piece) <= select.PIPE_BUF for piece in pieces if piece.count(b"\n") > 1)


def test_lines_wait_for_a_thread_that_cannot_be_started_yet(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse_once(thread: threading.Thread) -> None:
        if not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    monkeypatch.setattr(stream_module, "_RETRY", 0.0)
    stream = LogStream(pipe[1])
    stream.write("one\n")
    assert refused
    stream.write("two\n")
    assert read(pipe[0], 2) == ["one", "two"]
    stream.drain()


def test_a_traceback_shows_no_values() -> None:
    """Of what a frame holds, some is secret: a password, a token, a signed URL."""
    program = """
import structlog
from mirror.logs import log_json
log_json()

def ask(authorization):
    raise RuntimeError("something unforeseen")

try:
    ask("".join(["Bearer ", "s3cret"]))
except RuntimeError:
    structlog.get_logger().exception("a request failed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    line = json.loads(done.stderr)
    assert line["exception"][0]["exc_value"] == "something unforeseen"
    assert [frame["name"] for frame in line["exception"][0]["frames"]] == ["<module>", "ask"]
    assert "s3cret" not in done.stderr
    assert "s3cret" not in done.stdout


SOURCES = sorted(Path(mirror.__file__).parent.rglob("*.py"))


def events_of(source: Path) -> Iterator[str]:
    """What the lines are called that this module logs."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "_log.")):
            name = node.args[0]
            assert isinstance(name, ast.Constant), f"{source}:{node.lineno}"
            yield name.value


def test_every_event_of_the_log_has_a_name_in_snake_case() -> None:
    names = {name for source in SOURCES for name in events_of(source)}
    assert len(names) > 50
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)] == []
