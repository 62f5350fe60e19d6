"""Configurations of images, as they are shown: from strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mirror.contracts.administration import ImageConfig
from mirror.hosted.image_configs import image_config


def test_an_images_configuration_is_read() -> None:
    found = image_config(
        json.dumps(
            {
                "created": "2026-01-02T03:04:05Z",
                "os": "linux",
                "config": {
                    "User": "app",
                    "WorkingDir": "/srv",
                    "Entrypoint": ["/bin/app"],
                    "Cmd": ["--port", "80"],
                    "Env": ["PATH=/bin"],
                    "ExposedPorts": {"80/tcp": {}},
                    "Labels": {"team": "acme"},
                },
                "history": [{"created_by": "COPY app /bin"}, {"empty_layer": True}],
            }
        ).encode()
    )
    assert found == ImageConfig(
        "2026-01-02T03:04:05Z",
        "app",
        "/srv",
        ("/bin/app",),
        ("--port", "80"),
        ("PATH=/bin",),
        ("80/tcp",),
        {"team": "acme"},
        ("COPY app /bin",),
    )


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"a": NaN}', b"{" * 100])
def test_what_is_no_configuration_is_none(data: bytes) -> None:
    assert image_config(data) is None


@pytest.mark.parametrize("wrong", [None, 3, "x", [1, None, {}], {"a": 3}, [["x"]], True])
def test_what_is_not_as_it_should_be_is_left_out(wrong: Any) -> None:
    keys = ("User", "WorkingDir", "Entrypoint", "Cmd", "Env", "ExposedPorts", "Labels")
    run = dict.fromkeys(keys, wrong)
    found = image_config(json.dumps({"created": 3, "config": run, "history": wrong}).encode())
    assert found is not None
    assert found.steps == ()
    assert found.environment == ()
    assert found.labels == {}


def test_what_is_long_is_cut() -> None:
    run = {"Env": ["x" * 100_000] * 1000}
    found = image_config(json.dumps({"config": run}).encode())
    assert found is not None
    assert (len(found.environment), len(found.environment[0])) == (200, 4096)
