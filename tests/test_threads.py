"""Blocking work off the event loop, on machines that start a thread only sometimes."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from mirror.threads import AT_ONCE, MayHang, Threads, aside, read_aside

from .waiting import eventually


class Machine:
    """Starts so many threads more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1000
        start = threading.Thread.start

        def start_or_not(thread: threading.Thread) -> None:
            if self.left == 0:
                raise RuntimeError("can't start new thread")
            self.left -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_not)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def fail() -> None:
    raise ValueError("as it should")


async def test_work_is_done_on_a_thread_and_what_it_raises_is_raised() -> None:
    threads = Threads(1, "test")
    assert await threads.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ValueError, match="as it should"):
        await threads.run(fail)
    threads.close()


async def test_with_no_thread_work_is_done_all_the_same_and_later_work_tries_again(
    machine: Machine,
) -> None:
    threads = Threads(1, "test")
    machine.left = 0
    async with asyncio.timeout(5):
        assert await threads.run(threading.get_ident) == threading.get_ident()
        with pytest.raises(ValueError, match="as it should"):
            await threads.run(fail)
        machine.left = 1
        assert await threads.run(threading.get_ident) != threading.get_ident()
    threads.close()


async def test_with_one_thread_of_several_the_queue_goes_on(machine: Machine) -> None:
    threads = Threads(4, "test")
    machine.left = 1
    go = threading.Event()
    held = asyncio.create_task(threads.run(go.wait))
    await asyncio.sleep(0)
    others = [asyncio.create_task(threads.run(threading.get_ident)) for _ in range(8)]
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(5):
        assert await held
        assert threading.get_ident() not in await asyncio.gather(*others)
    threads.close()


async def test_what_was_given_is_done_before_it_is_closed_and_nothing_after() -> None:
    threads = Threads(2, "test")
    done: list[int] = []
    for number in range(20):
        threads.begin(done.append, number)
    threads.close()
    assert sorted(done) == list(range(20))
    with pytest.raises(RuntimeError, match="closed"):
        await threads.run(fail)


async def test_work_whose_turn_has_not_come_is_not_done_for_a_caller_who_left() -> None:
    threads = Threads(1, "test")
    go = threading.Event()
    done: list[int] = []
    first = asyncio.create_task(threads.run(go.wait))
    second = asyncio.create_task(threads.run(done.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await first
    await threads.run(done.append, 3)
    assert done == [3]
    threads.close()


def named(name: str) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(name)}


async def test_shared_threads_end_with_their_event_loop() -> None:
    before = named("aside")

    async def work() -> int:
        return await aside(threading.get_ident)

    def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        try:
            assert loop.run_until_complete(work()) != threading.get_ident()
            assert named("aside") - before
        finally:
            loop.close()
        return weakref.ref(loop)

    thread: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    runner = threading.Thread(target=lambda: thread.append(run()))
    runner.start()
    runner.join()

    def ended() -> bool:
        gc.collect()
        return thread[0]() is None and not named("aside") - before

    await eventually(ended)


async def test_a_large_document_is_read_on_a_thread_and_a_small_one_in_place() -> None:
    def where(data: bytes, more: str) -> tuple[int, str]:
        return threading.get_ident(), f"{len(data)}{more}"

    here, _ = await read_aside(where, b"x" * AT_ONCE, "!")
    there, read = await read_aside(where, b"x" * (AT_ONCE + 1), "!")
    assert here == threading.get_ident() != there
    assert read == f"{AT_ONCE + 1}!"


async def test_work_that_hangs_is_waited_for_once_and_nothing_more_is_begun_beside_it() -> None:
    work, hung, done = MayHang(0.05), threading.Event(), list[int]()
    before = named("may_hang")  # another test's may end meanwhile
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await work.run(hung.wait)
    assert len(named("may_hang") - before) == 1
    hung.set()

    async def runs_again() -> bool:
        try:
            return bool(await work.run(lambda: done.append(1) or True))
        except TimeoutError:
            return False

    await eventually(runs_again)
    assert done == [1]
    with pytest.raises(ValueError, match="as it should"):
        await work.run(fail)


async def test_work_that_may_hang_is_done_one_after_the_other() -> None:
    work, running, most = MayHang(30), list[int](), list[int]()

    def one() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    await asyncio.gather(*(work.run(one) for _ in range(20)))
    assert most == [1] * 20


async def test_work_that_may_hang_is_never_done_on_the_event_loop(machine: Machine) -> None:
    machine.left = 0
    with pytest.raises(OSError, match="no thread can be started"):
        await MayHang(30).run(threading.get_ident)
