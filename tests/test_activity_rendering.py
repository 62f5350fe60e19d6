"""The JSON of what goes on."""

import asyncio
import json

from mirror.contracts.activity import Activity, rendered

from .fakes.activity import NOW, FakeActivity, pull_told, status_told


def test_all_that_is_told_is_json():
    told = json.loads(json.dumps(rendered(status_told())))
    assert told["cache"]["images"] == 812
    assert told["endpoints"][1]["state"] == "login_refused"
    assert told["config"]["changed_at"] is None
    pull = json.loads(json.dumps(rendered(pull_told())))
    assert pull["outcomes"] == {"hit": 4, "filled": 1}
    assert pull["requests"][0]["why"] == "never seen here"
    assert pull["began_at"] == NOW - 60


async def test_the_stand_in_keeps_to_the_contract():
    activity: Activity = FakeActivity()
    assert [pull.image for pull in activity.pulls(like="REDIS")] == ["redis:7"]
    assert not activity.pulls(like="torch")
    assert await activity.changed(1, 0.01) == 1
    waiting = asyncio.create_task(activity.changed(1, 5.0))
    await asyncio.sleep(0)
    activity.now_is_new()
    assert await waiting == 2
