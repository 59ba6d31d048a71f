"""The same queries on the older server that Debian brings, over TLS settings as the catalog has them."""

from __future__ import annotations

import json

import pytest

from pgproxy.dsn import Dsn
from pgproxy.impact import Probe
from tests import debian
from tests.pgproxy.impact.conftest import SCHEMA, approval

STATEMENTS = [
    "DROP TABLE customers CASCADE",
    "DELETE FROM customers WHERE id = 1",
    "SELECT * FROM orders WHERE id < $1",
    "COPY (SELECT * FROM emails) TO STDOUT",
    "GRANT SELECT ON customers TO app",
    "GRANT app TO plain",
    "ALTER ROLE app CREATEDB",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
]


@pytest.mark.parametrize("sslmode", ["require", "disable"])
async def test_every_section_is_gathered(sslmode: str) -> None:
    with debian.running() as server:
        with server.admin() as admin:
            admin.execute(SCHEMA.encode())
            admin.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END")
            admin.execute("GRANT pg_read_all_data, pg_write_all_data TO observer")
        dsn = Dsn(host="127.0.0.1", port=server.port, sslmode=sslmode)
        probe = Probe(dsn, "observer", "secret", total_s=20.0)
        try:
            for sql in STATEMENTS:
                impact = await probe.probe(approval(sql, "postgres"))
                assert '"error"' not in json.dumps(impact), (sql, impact)
                assert "skipped" not in json.dumps(impact.get("plan", [])), (sql, impact)
                assert len(impact) > 4, (sql, impact)
            (function,) = impact["functions"]
            assert "SELECT 1" in function["body"]
        finally:
            await probe.close()
