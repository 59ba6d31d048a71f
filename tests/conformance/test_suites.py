"""What counts as a regression of a client suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.suites import EXCUSED, Result, compare, flaky, read_excused

DIRECT = Result("asyncpg", "direct", {"a": "passed", "b": "passed", "c": "failed", "d": "passed"}, 1.0)


def test_what_failed_was_skipped_or_never_ran_is_a_regression() -> None:
    through = Result("asyncpg", "enforce", {"a": "passed", "b": "skipped", "c": "failed"}, 2.0)
    assert compare(DIRECT, through, []).regressions == ["b", "d"]


def test_only_the_named_mode_and_suite_are_excused() -> None:
    through = Result("asyncpg", "enforce", {"a": "failed", "b": "failed", "c": "passed", "d": "error"}, 2.0)
    excused = [("enforce", "asyncpg:a"), ("*", "psycopg2:b"), ("observe", "asyncpg:d")]
    found = compare(DIRECT, through, excused)
    assert (found.excused, found.regressions) == (["a"], ["b", "d"])


def test_what_differs_between_direct_runs_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "flaky").mkdir()
    (tmp_path / "flaky" / "asyncpg.txt").write_text("# why\nb  # differed between two direct runs\n")
    assert flaky(tmp_path, "pg8000") == set()
    through = Result("asyncpg", "observe", {"a": "failed", "b": "failed", "d": "passed"}, 2.0)
    assert compare(DIRECT, through, [], flaky(tmp_path, "asyncpg")).regressions == ["a"]


def test_a_test_name_may_hold_blanks_and_marks() -> None:
    text = "# of the file\n\nenforce asyncpg:x.py::t[a b#c]  # measures time\n* pg8000:y  # why\n"
    assert read_excused(text) == [("enforce", "asyncpg:x.py::t[a b#c]"), ("*", "pg8000:y")]


@pytest.mark.parametrize(
    "line", ["enforce asyncpg:x", "enforce asyncpg:x  # ", "asyncpg:x  # why", "direct a:b  # why"]
)
def test_a_line_without_mode_or_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"suites_excused\.txt:1"):
        read_excused(line)


def test_the_committed_file_is_well_formed() -> None:
    read_excused(EXCUSED.read_text())
