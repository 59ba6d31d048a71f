"""The status machine against the store, cell by cell, and the values of an approval."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from approvals import requests
from approvals.model import ID_LENGTH, TRANSITIONS, Status, is_id, new_id, person_key, sources
from tests.approvals.conftest import SHA, Store, request

ALLOWED = {
    ("pending", "approved"),
    ("pending", "denied"),
    ("pending", "expired"),
    ("pending", "withdrawn"),
    ("approved", "executing"),
    ("approved", "expired"),
    ("approved", "withdrawn"),
    ("executing", "executed"),
    ("executing", "failed"),
    ("executing", "unknown"),
}
"""Written out once more, from the design: the table in the code must not be its own proof."""


def test_the_table_is_the_designs() -> None:
    assert {(source.value, target.value) for source, targets in TRANSITIONS.items() for target in targets} == ALLOWED
    assert set(TRANSITIONS) == set(Status)


async def take_step(connection: Any, approval_id: str, target: Status) -> bool:
    if target is Status.EXECUTING:
        return await requests.claim(connection, approval_id, "b1", SHA, node="n1", instance="w1")
    return await requests.step(connection, approval_id, target)


async def test_every_cell_of_the_table_in_the_store(store: Store) -> None:
    opened = await store.gateway.open(request())
    async with store.pool.acquire() as connection:
        for source, target in itertools.product(Status, Status):
            overdue = target is Status.EXPIRED
            await connection.execute(
                "UPDATE approvals.requests SET status = $2, created_at = now() - interval '2 h', "
                "expires_at = now() + CASE WHEN $3 THEN interval '-1 h' ELSE interval '1 h' END WHERE id = $1",
                opened.id,
                source.value,
                overdue,
            )
            stepped = await take_step(connection, opened.id, target)
            assert stepped == ((source.value, target.value) in ALLOWED), (source, target)
            assert await store.status(opened.id) == (target if stepped else source).value


@pytest.mark.parametrize("target", [Status.APPROVED, Status.DENIED, Status.EXECUTING])
async def test_what_is_overdue_can_only_expire(store: Store, target: Status) -> None:
    opened = await store.gateway.open(request())
    await store.make_due(opened.id)
    async with store.pool.acquire() as connection:
        if target is Status.EXECUTING:
            await connection.execute("UPDATE approvals.requests SET status = 'approved'")
        assert not await take_step(connection, opened.id, target)
        assert await requests.step(connection, opened.id, Status.EXPIRED)


async def test_what_is_not_overdue_cannot_expire(store: Store) -> None:
    opened = await store.gateway.open(request())
    async with store.pool.acquire() as connection:
        assert not await requests.step(connection, opened.id, Status.EXPIRED)


def test_sources_are_the_tables_columns() -> None:
    assert sources(Status.WITHDRAWN) == ["pending", "approved"]
    assert sources(Status.PENDING) == []


def test_ids_are_short_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(is_id(approval_id) and len(approval_id) == ID_LENGTH == 16 for approval_id in ids)
    time.sleep(0.13)
    assert new_id() > max(ids)


@pytest.mark.parametrize("text", ["", "a", "b00000000000000a", "a0000000000000\0a", "a00000000000000A", "a" + "0" * 16])
def test_what_is_not_an_id(text: str) -> None:
    assert not is_id(text)


def test_a_person_is_the_same_however_the_name_is_spelled() -> None:
    spellings = ["alice@example.com", " Alice@Example.COM ", "\uff41lice@example.com", "ALICE@example.com\u00a0"]
    assert len({person_key(name) for name in spellings}) == 1
    assert person_key("Straße") == person_key("STRASSE")
    assert person_key("e\u0301ve") == person_key("\u00e9ve")
    assert person_key("alice") != person_key("bob")
