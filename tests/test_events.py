"""The bus."""

from __future__ import annotations

from dataclasses import dataclass

from structlog.testing import capture_logs

from mirror.events import Events


@dataclass(frozen=True, slots=True)
class Rang:
    times: int


@dataclass(frozen=True, slots=True)
class Opened:
    door: str


def test_whoever_listens_to_a_type_hears_its_events_in_order() -> None:
    events, heard = Events(), list[object]()
    events.emit(Rang(1))  # before anybody listened
    events.listen(Rang, lambda event: heard.append(("first", event)))
    events.listen(Rang, lambda event: heard.append(("second", event)))
    events.listen(Opened, heard.append)
    events.emit(Rang(2))
    events.emit(Opened("front"))
    assert heard == [("first", Rang(2)), ("second", Rang(2)), Opened("front")]


def test_a_listener_that_raises_harms_nobody_and_is_logged_once_for_each_kind_of_error() -> None:
    events, heard = Events(), list[Rang]()

    def breaks(event: Rang) -> None:
        raise (ValueError if event.times < 3 else KeyError)(event.times)

    events.listen(Rang, breaks)
    events.listen(Rang, heard.append)
    with capture_logs() as lines:
        for times in range(5):
            events.emit(Rang(times))
    assert [event.times for event in heard] == [0, 1, 2, 3, 4]
    assert events.failures == 5
    assert [type(line["exc_info"]) for line in lines] == [ValueError, KeyError]
