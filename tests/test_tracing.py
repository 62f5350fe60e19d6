"""Traces, as units: what clients say, what is bounded, and what costs nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from mirror import config
from mirror.contracts.tracing import Attribute, current, enter, span, waits

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"42-{TRACE}-{SPAN}-01-of-a-later-version", True),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"42-{TRACE}-{SPAN}-01-{'x' * 1000}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_what_the_specification_says_or_nothing(
    header: str, sampled: bool | None
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from mirror.tracing.spans import parent_of

    found = parent_of(header)
    assert (None if found is None else found.trace_flags.sampled) is sampled


class Noted:
    """A span that notes what becomes of it."""

    trace_id = TRACE

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def child(self, name: str, attributes: object, *, is_client: bool) -> Noted:
        self.told.append(f"{name} in {self.name}")
        return Noted(name, self.told)

    def set(self, attributes: dict[str, Attribute]) -> None:
        pass

    def end(self, error: str = "") -> None:
        self.told.append(f"{self.name} over {error}".strip())


def test_a_step_is_of_what_is_under_way_and_ends_with_its_error() -> None:
    told: list[str] = []
    enter(Noted("request", told))

    def fails() -> None:
        with span("fill", {}):
            over = waits("queue")
            with span("ask", {}, is_client=True):
                pass
            over()
            over()
            raise ValueError

    try:
        with pytest.raises(ValueError):
            fails()
        assert current() is not None
    finally:
        enter(None)
    assert told == [
        "fill in request",
        "queue in fill",
        "ask in fill",
        "ask over",
        "queue over",
        "fill over ValueError",
    ]
    with span("untraced", {}) as step:
        assert step is None
    waits("nothing")()


def parsed(tracing: str) -> config.Config:
    return config.parse(f"tracing: {tracing}\n", "mirror.yaml")


def test_tracing_is_configured_by_a_url_and_a_share() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    found = parsed("{otlp: 'http://collector:4318', sample: 25%}").tracing
    assert found is not None
    assert (found.otlp, found.sample) == ("http://collector:4318", 0.25)
    assert config.parse("", "mirror.yaml").tracing is None
    for wrong, words in (
        ("{otlp: 'collector:4318'}", "a URL such as http://collector:4318"),
        ("{otlp: 'http://collector:4318', sample: 3}", "a share such as 20%"),
        ("{sample: 10%}", "tracing.otlp"),
    ):
        with pytest.raises(config.ConfigError) as error:
            parsed(wrong)
        assert words in str(error.value)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("mirror.config.tracing.find_spec", find_spec)
    with pytest.raises(config.ConfigError) as error:
        parsed("{otlp: 'http://collector:4318'}")
    assert "pip install 'registry-mirror[otel]'" in str(error.value)


def test_opentelemetry_is_not_imported_where_nothing_is_traced() -> None:
    assert importlib.util.find_spec("mirror.tracing") is not None
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mirror.app.serving, mirror.cli; "
            "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))",
        ]
    )
    assert done.returncode == 0
