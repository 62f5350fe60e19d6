"""The dashboard's and the alerts' queries, against metrics that the mirror really exports."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ..waiting import until
from .prometheus import scraping

# What Prometheus itself adds.
_SCRAPE_LABELS = {"job": "registry-mirror", "instance": "m:5001"}
_VARIABLES = {"$instance": ".*", "$registry": ".*", "$__rate_interval": "1m", "$__range": "1h"}

_KEYWORDS = {
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
}
_KEYWORDS |= {"by", "without"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(
    r"""(?<![\w.:])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()  # a name that is no function's
        (?:\s*\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\})?      # {label="value", …}
    """,
    re.VERBOSE,
)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")


class Selector(NamedTuple):
    metric: str
    matchers: tuple[tuple[str, str, str], ...]  # label, operator, value

    def takes(self, labels: dict[str, str]) -> bool:
        for label, operator, value in self.matchers:
            have = labels.get(label, "")
            same = re.fullmatch(value, have) is not None if "~" in operator else have == value
            if same == operator.startswith("!"):
                return False
        return True


def selectors(expr: str) -> list[Selector]:
    plain = _RANGE.sub("", _GROUPING.sub("", expr))
    return [
        Selector(name, tuple(_MATCHER.findall(matchers)))
        for name, matchers in _SELECTOR.findall(plain)
        if name not in _KEYWORDS
    ]


def grouped_by(expr: str) -> set[str]:
    return {word.strip() for group in _GROUPING.findall(expr) for word in group.split(",")} - {""}


def filled_in(expr: str) -> str:
    for name, value in _VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


class Query(NamedTuple):
    where: str
    expr: str
    legend: str


_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def dashboard() -> list[Query]:
    board = json.loads((_DEPLOY / "grafana/dashboards/registry-mirror.json").read_text())
    return [
        Query(panel["title"], filled_in(target["expr"]), target["legendFormat"])
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def alerts() -> list[Query]:
    rules = yaml.safe_load((_DEPLOY / "prometheus/alerts.yml").read_text())
    return [
        Query(
            rule["alert"],
            rule["expr"],
            # As in a legend: what the text wants of the labels.
            re.sub(r"\$labels\.(\w+)", r"\1", json.dumps(rule["annotations"])),
        )
        for group in rules["groups"]
        for rule in group["rules"]
    ]


def named(query: Query) -> str:
    return query.where.replace(" ", "-")


@pytest.fixture(scope="module")
def exported(busy) -> dict[str, list[dict[str, str]]]:
    """Name of a series → the label sets with which the mirror exports it."""
    found: dict[str, list[dict[str, str]]] = {"up": [_SCRAPE_LABELS]}
    for family in text_string_to_metric_families(busy().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append({**sample.labels, **_SCRAPE_LABELS})
    return found


def test_queries_are_read_rightly():
    expr = (
        'sum by (job, le) (rate(a_total{x="y}", z=~"1|2"}[5m] offset 15m)) / on (job) b > 0.5'
        " unless c:d or vector(0)"
    )
    assert selectors(expr) == [
        Selector("a_total", (("x", "=", "y}"), ("z", "=~", "1|2"))),
        Selector("b", ()),
        Selector("c:d", ()),
    ]
    assert grouped_by(expr) == {"job", "le"}
    assert Selector("a", (("x", "!=", "1"), ("y", "=~", "2|3"))).takes({"y": "3"})
    assert not Selector("a", (("x", "!~", "1|2"),)).takes({"x": "2"})


@pytest.mark.parametrize("query", [*dashboard(), *alerts()], ids=named)
def test_a_query_asks_for_series_that_the_mirror_exports(query, exported):
    asked = selectors(query.expr)
    assert asked
    for selector in asked:
        assert selector.metric in exported
        taken = [labels for labels in exported[selector.metric] if selector.takes(labels)]
        assert taken, f"no series of {selector.metric} has {selector.matchers}"
        for label, _, _ in selector.matchers:
            assert label in taken[0]
    labels = {label for s in asked for labels in exported[s.metric] for label in labels}
    assert grouped_by(query.expr) <= labels


def test_the_dashboard_shows_every_metric_of_the_mirror(exported):
    shown = {s.metric for query in dashboard() for s in selectors(query.expr)}
    of_the_mirror = {re.sub(r"_(sum|count)$", "_bucket", name) for name in exported}
    assert of_the_mirror == shown


def test_the_dashboard_is_whole(deploy):
    board = json.loads((deploy / "grafana/dashboards/registry-mirror.json").read_text())
    assert board["schemaVersion"] >= 39
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for name in ("instance", "registry"):
        assert variables[name]["datasource"]["uid"] == "${datasource}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] not in ("row", "text"):
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


# Below: a real Prometheus scrapes the mirror's metrics and is asked every query.


@pytest.fixture(scope="module")
def scraped(busy) -> Iterator[int]:
    """The port of an admin page where much happens between two scrapes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = busy()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # a scrape that did not wait
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def prometheus(program, scraped, tmp_path_factory) -> Iterator[Callable[[str], list[dict]]]:
    """Asks a real Prometheus."""
    folder = tmp_path_factory.mktemp("prometheus")
    executable = program("prometheus", "Debian's prometheus")
    with scraping(folder, executable, f"127.0.0.1:{scraped}") as prometheus:
        yield prometheus.ask


def faults(
    ask: Callable[[str], list[dict]], queries: list[Query], empty: Collection[str] = ()
) -> dict[str, str]:
    """Where a query is not answered with a number, or without a label that its text wants. Labels
    that are `empty` are as good as none."""
    found = {}
    for query in queries:
        result = [series for series in ask(query.expr) if series["value"][1] != "NaN"]
        wanted = set(re.findall(r"{{\s*(\w+)\s*}}", query.legend))
        if not result:
            found[query.where] = "no answer"
        for series in result:
            if missing := wanted - set(series["metric"]) - set(empty):
                found[query.where] = f"without {sorted(missing)}"
    return found


def test_prometheus_answers_the_alerts_of_a_mirror_in_trouble(prometheus):
    """Everything goes wrong at the scraped mirror but for four things that it cannot show: it is
    up, its cache is not full, its fills do get bytes, and no second node knows of other ones."""
    cannot = (
        "RegistryMirrorDown",
        "RegistryMirrorCacheNearlyFull",
        "RegistryMirrorFillsStuck",
        "RegistryMirrorFleetApart",
    )
    expected = dict.fromkeys(cannot, "no answer")
    until(
        lambda: faults(prometheus, alerts()) == expected,
        lambda: str(faults(prometheus, alerts())),
    )
