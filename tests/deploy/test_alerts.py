"""The alert rules, by promtool: that they parse, and when they fire."""

from __future__ import annotations

import subprocess

import pytest
import yaml


@pytest.fixture
def promtool(deploy, program):
    executable = program("promtool", "Debian's prometheus")

    def run(*words: str) -> str:
        done = subprocess.run(
            [executable, *words], cwd=deploy / "prometheus", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_prometheus_takes_the_configuration_and_finds_the_rules(promtool):
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml")


def test_the_alerts_fire_when_they_should_and_are_silent_otherwise(promtool):
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_shown_firing_and_silent(deploy):
    """promtool is content with an alert that no test names."""
    rules = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    tried = yaml.safe_load((deploy / "prometheus/alerts_test.yml").read_text())
    fired = {
        case["alertname"]
        for test in tried["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == set(alerts)
    silent = {
        case["alertname"]
        for test in tried["tests"]
        for case in test["alert_rule_test"]
        if not case["exp_alerts"]
    }
    assert silent == set(alerts)
    for rule in alerts.values():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
