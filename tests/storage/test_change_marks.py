"""Marks of what has changed, seen by all who have the same file."""

from __future__ import annotations

from pathlib import Path

from mirror.storage.change_marks import ChangeMarks


def test_a_change_is_seen_by_others_at_once_and_of_its_repository_alone(tmp_path: Path) -> None:
    mine, theirs = ChangeMarks(tmp_path / "marks"), ChangeMarks(tmp_path / "marks")
    app, other = mine.still("team/app"), mine.still("team/other")
    assert app()
    theirs.changed("team/app")
    assert not app()
    assert other()
    assert mine.still("team/app")()
    mine.changed("team/app")
    assert not app()
    mine.close()
    theirs.close()


def test_two_changes_at_once_leave_no_mark_that_was_there_between(tmp_path: Path) -> None:
    """As two processes would that both count from what they have read."""
    marks = ChangeMarks(tmp_path / "marks")
    seen = []
    for _ in range(100):
        still = marks.still("team/app")
        seen.append(still)
        marks.changed("team/app")
    assert not any(still() for still in seen)
    marks.close()
