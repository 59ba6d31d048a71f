"""The fake server, understanding enough SQL for recorded conversations, and watching what runs.

What it executes is held against the approvals handed out: a privileged text (see `oracle`) needs one for exactly these
bytes and these parameters, and each serves once. Names, portals and strings of statements are followed here with the
fake server's own means; the texts come out of the raw bytes, not out of the product's readers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from pgproxy.protocol import backend, frontend, tags
from tests.fuzz import oracle
from tests.pgproxy.session.fake_server import FakeServer, Portal, ServerError


class Leak(Exception):
    """Something privileged reached the server unasked."""


@dataclass
class Claim:
    """One approval handed out, as the reviewer saw it."""

    sha256: str
    params: list[str | None]
    shown: set[str]
    executing: bool = False


_WORD = re.compile(r"[A-Za-z]+")
_NAME = r"""("(?:[^"]|"")+"|[A-Za-z_]\w*)"""
_PREPARE = re.compile(rf"prepare\s+{_NAME}\s*(?:\([^)]*\))?\s*as\s+(.*)", re.IGNORECASE | re.DOTALL)
_EXECUTE = re.compile(rf"execute\s+{_NAME}\s*(?:\(.*\))?", re.IGNORECASE | re.DOTALL)
_DEALLOCATE = re.compile(rf"deallocate\s+(?:prepare\s+)?{_NAME}", re.IGNORECASE)
_SERIES = re.compile(r"\bgenerate_series\s*\(\s*1\s*,\s*(\d{1,2})\s*\)", re.IGNORECASE)
_SET = re.compile(r"set\s+(\w+)\s*(?:to|=)\s*'?(\w+)'?", re.IGNORECASE)
_NUMBER = re.compile(r"select\s+(\d{1,9})", re.IGNORECASE)
_ROWS = frozenset({"SELECT", "VALUES", "TABLE", "WITH", "SHOW", "FETCH", "EXPLAIN"})
_OTHERS = frozenset(
    {"INSERT", "UPDATE", "DELETE", "DECLARE", "CLOSE", "MOVE", "RELEASE", "RESET", "SET", "LISTEN", "UNLISTEN"}
    | {"NOTIFY", "ANALYZE", "VACUUM", "DROP", "TRUNCATE", "CREATE", "GRANT", "REINDEX", "ALTER", "LOCK", "DO"}
)


def _name(text: str) -> str:
    plain = text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
    return plain.encode("utf-8", "surrogateescape")[:63].decode("utf-8", "ignore")


def translated(statement: str) -> str:
    """In the few words of the fake server. What is privileged stays as it is. Raises ServerError."""
    first = _WORD.match(statement)
    word = first[0].upper() if first else ""
    if "pgproxy_denied" in statement or "pgproxy_probe" in statement:
        if word == "SELECT":
            return statement
        word = ""
    elif oracle.is_privileged(statement):
        return f"{word}{statement[len(word) :]}"
    match word:
        case "BEGIN" | "START":
            return "BEGIN"
        case "COMMIT" | "END":
            return "COMMIT"
        case "ROLLBACK" | "ABORT":
            parts = statement.split()
            return f"ROLLBACK TO {parts[-1].lower()}" if "TO" in statement.upper().split() else "ROLLBACK"
        case "SAVEPOINT":
            return f"SAVEPOINT {statement.split()[-1].lower()}"
        case "PREPARE" if found := _PREPARE.fullmatch(statement):
            return f"PREPARE {_name(found[1])} AS {translated(found[2])}"
        case "EXECUTE" if found := _EXECUTE.fullmatch(statement):
            return f"EXECUTE {_name(found[1])}"
        case "DEALLOCATE" if found := _DEALLOCATE.fullmatch(statement):
            return f"DEALLOCATE {'ALL' if found[1].upper() == 'ALL' else _name(found[1])}"
        case "DISCARD":
            return "DISCARD ALL"
        case "COPY":
            return (
                "COPY t FROM STDIN" if re.search(r"\bfrom\s+stdin\b", statement, re.IGNORECASE) else "COPY t TO STDOUT"
            )
        case "SET" if (found := _SET.fullmatch(statement)) and found[1].lower() in ("search_path", "client_encoding"):
            return f"SET {found[1].lower()} TO {found[2]}"
        case _ if word in _ROWS:
            if "1/0" in statement:
                return "FAIL"
            if found := _SERIES.search(statement):
                return f"ROWS {found[1]}"
            if found := _NUMBER.fullmatch(statement):
                return f"SELECT {found[1]}"
            return "SELECT 1"
        case _ if word in _OTHERS:
            return f"INSERT {word}"
    raise ServerError("42601", f'syntax error at or near "{statement.split()[0]}"', True)


@dataclass
class SqlServer(FakeServer):
    claims: list[Claim] = field(default_factory=list)
    enforced: bool = True
    privileged_runs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sources: dict[bytes, bytes] = {}  # of statements: the text that made them, as it came
        self._portal_sources: dict[bytes, tuple[Portal, bytes, bool]] = {}
        self._raw = b""
        self._licensed = False
        self._values: list[bytes | None] | None = None
        self._reports: list[bytes] = []

    def _grammar(self, query: bytes) -> list[str]:
        return [translated(s) for s in oracle.statements(query.decode("utf-8", "surrogateescape"))]

    def _dispatch(self, kind: int, m: bytes) -> None:
        if kind == tags.QUERY:
            self._raw, self._licensed, self._values = m[5:-1], False, []
        elif kind == tags.FUNCTION_CALL:
            self._raw = b"FUNCTION CALL %d" % int.from_bytes(m[5:9], "big")
            self._values = None
            self._need(set())
        super()._dispatch(kind, m)

    def _parse(self, p: frontend.Parse) -> None:
        super()._parse(p)
        self._sources[p.name[:63]] = p.query

    def _bind(self, b: frontend.Bind) -> None:
        super()._bind(b)
        name = b.statement[:63]
        self._raw, self._licensed = self._sources.get(name, b""), False
        self._values = list(b.parameters)
        self._license(self.statements[name])
        portal = self.portals[b.portal[:63]]
        self._portal_sources[b.portal[:63]] = (portal, self._raw, self._licensed)

    def _execute(self, e: frontend.Execute) -> None:
        portal = self.portals.get(e.portal[:63])
        if portal is not None:
            bound, self._raw, self._licensed = self._portal_sources[e.portal[:63]]
            assert bound is portal
            self._values = None
        super()._execute(e)

    def _run(self, text: str, *, described: bool, depth: int = 0) -> bool:
        if depth == 0:
            self._allowed_now(text)
            self._license(text)
        if text.startswith("SET client_encoding"):
            self._reports.append(backend.parameter_status(b"client_encoding", text.rpartition(" ")[2].upper().encode()))
            self.ran.append(text)
            self._complete("SET")
            return False
        waits = super()._run(text, described=described, depth=depth)
        if text.startswith("PREPARE "):
            self._sources[text.split()[1].encode("utf-8", "surrogateescape")] = self._raw
        return waits

    def _ready(self) -> None:
        self._out += self._reports
        self._reports.clear()
        super()._ready()

    # the watch

    def _license(self, text: str) -> None:
        """This text is about to be bound or run; a string of statements, like a portal, needs its approval once."""
        executed: set[str] = set()
        if self.enforced and not self._licensed and self._is_privileged(text, executed):
            self._need(executed)
            self._licensed = True

    def _is_privileged(self, text: str, executed: set[str], depth: int = 0) -> bool:
        if text.startswith("EXECUTE ") and depth < 20:
            name = text.partition(" ")[2].encode("utf-8", "surrogateescape")
            inner = self.statements.get(name)
            if inner is None or not self._is_privileged(inner, executed, depth + 1):
                return False
            executed.add(self._sources[name].decode("utf-8", "backslashreplace"))
            return True
        return oracle.is_privileged(text) or text == "COPY t TO STDOUT"

    def _need(self, executed: set[str]) -> None:
        if not self.enforced:
            return
        self.privileged_runs += 1
        digest = hashlib.sha256(self._raw).hexdigest()
        for claim in self.claims:
            if claim.sha256 == digest and executed <= claim.shown and self._same_values(claim.params):
                self.claims.remove(claim)
                return
        raise Leak(f"{self._raw!r} (which executes {executed or 'itself'}) runs unasked; approved: {self.claims}")

    def _same_values(self, shown: list[str | None]) -> bool:
        if self._values is None:
            return True
        if len(shown) != len(self._values):
            return False
        for value, said in zip(self._values, shown, strict=True):
            if (value is None) != (said is None):
                return False
            # Binary numbers are shown as numbers; other letters and digits only ever stand for themselves.
            if value is None or not value.isalnum() or len(value) in (2, 4, 8):
                continue
            if said not in (value.decode("latin-1"), "\\x" + value.hex()):
                return False
        return True
