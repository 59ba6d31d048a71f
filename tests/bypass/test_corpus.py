"""Evasions stay caught, ordinary traffic stays unstopped."""

from __future__ import annotations

import pytest

from classifier import UNPRIVILEGED, ActionClass, classify
from tests.bypass.corpus import must_not_park, must_park


@pytest.mark.parametrize(("classes", "story", "sql"), must_park())
def test_evasion_is_privileged_and_of_its_class(classes: tuple[str, ...], story: str, sql: str) -> None:
    found = classify(sql)
    assert found.privileged, story
    assert set(classes) <= set(found.classes), (story, found.classes)
    assert found.reasons, story


@pytest.mark.parametrize(("story", "sql"), must_not_park())
def test_ordinary_statement_is_not_stopped(story: str, sql: str) -> None:
    found = classify(sql)
    assert not found.privileged, (story, found.reasons)


def test_corpora_only_grow() -> None:
    assert len(must_park()) >= 150
    assert len(must_not_park()) >= 450


def test_every_privileged_class_has_an_evasion() -> None:
    covered = {name for classes, _, _ in must_park() for name in classes}
    assert {str(c) for c in ActionClass if c not in UNPRIVILEGED} <= covered
