"""A real Prometheus, configured as in deploy/ but for the mirror's address, and fast."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..waiting import until

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        return self.get("query", query=expr)["result"]

    def rules(self) -> dict[str, dict[str, Any]]:
        groups = self.get("rules")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("vector(1)"))
        return False


@contextlib.contextmanager
def scraping(folder: Path, executable: str, target: str) -> Iterator[Prometheus]:
    """One that scrapes this address, and evaluates the alerts."""
    config = yaml.safe_load((_DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["rule_files"] = [str(_DEPLOY / "prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                executable,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until(prometheus.answers, lambda: (folder / "log").read_text()[-1000:])
        yield prometheus
    finally:
        process.terminate()
        process.wait(10)
