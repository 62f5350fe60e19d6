"""What is replaced while it is used."""

from __future__ import annotations

import asyncio

from mirror.switch import Switch


async def test_a_use_keeps_the_value_that_it_began_with() -> None:
    switch = Switch("old")
    with switch.use() as use:
        unused = asyncio.ensure_future(switch.replace("new")())
        assert (use.value, use.is_current) == ("old", False)
        assert switch.current == "new"
        with switch.use() as later:
            assert (later.value, later.is_current) == ("new", True)
        await asyncio.sleep(0)
        assert not unused.done()
    await unused


async def test_the_old_value_is_let_go_when_the_last_of_its_uses_has_ended() -> None:
    switch = Switch(1)
    first, second = switch.use(), switch.use()
    unused = asyncio.ensure_future(switch.replace(2)())
    first.end()
    first.end()  # which ends it no second time
    await asyncio.sleep(0)
    assert not unused.done()
    second.end()
    await unused


async def test_a_value_that_nothing_uses_is_let_go_at_once() -> None:
    switch = Switch(1)
    with switch.use():
        pass
    await switch.replace(2)()
    await switch.replace(3)()
    assert switch.current == 3
