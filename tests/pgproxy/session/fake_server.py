"""A PostgreSQL backend without I/O, faithful where the protocol's order of things is decided: the main loop's
skip-till-Sync, when output is flushed, statements, portals and transactions, COPY FROM STDIN (what it ignores, and
that it dies of anything else). It was checked by hand against PostgreSQL 18.

Its SQL is a few words: see `_run`. `ran` and `bound` hold every text that was executed or bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.body import message

_EXTENDED = frozenset({tags.PARSE, tags.BIND, tags.EXECUTE, tags.DESCRIBE, tags.CLOSE, tags.FLUSH})
_WORDS = frozenset(
    {"SELECT", "ROWS", "INSERT", "DEFERRED", "FAIL", "DROP", "COPY", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT"}
    | {"PREPARE", "EXECUTE", "DEALLOCATE", "DISCARD", "SET", "DECLARE", "FETCH"}
)


class ServerError(Exception):
    def __init__(self, sqlstate: str, text: str, position: bool = False) -> None:
        self.sqlstate, self.text, self.position = sqlstate, text, position


@dataclass
class Portal:
    text: str
    level: int
    rows_sent: int = 0
    done: bool = False


@dataclass
class FakeServer:
    alive: bool = True
    status: str = "I"
    received: bytes = b""
    ran: list[str] = field(default_factory=list)
    bound: list[str] = field(default_factory=list)
    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, Portal] = field(default_factory=dict)
    readies: int = 0
    lazy: bool = False  # sends the rows of ROWS a few at a time, when it is asked to `pump`, and can be cancelled

    def __post_init__(self) -> None:
        self._in = b""
        self._out: list[bytes] = []
        self._flushed: list[bytes] = []
        self._skipping = False
        self._extended = False
        self._savepoints: list[str] = []
        self._deferred = False
        self._copying = False
        self._rest: list[str] | None = (
            None  # of the simple query that a COPY interrupted; None in the extended protocol
        )
        self._search_path: str | None = None
        self._left = 0  # rows of a result under way
        self._last = b""  # what ends it

    # the connection

    def feed(self, data: bytes) -> bytes:
        """Gives what the server has flushed."""
        self.received += data
        self._in += data
        return self._work()

    @property
    def is_streaming(self) -> bool:
        return self.alive and self._left > 0

    def pump(self) -> bytes:
        """Some more of the result under way."""
        now = min(self._left, 3)
        self._left -= now
        self._rows(now, b"r")
        if not self._left:
            self._out.append(self._last)
            rest, self._rest = self._rest, None
            if rest is not None:
                self._guarded(rest)
        self._flush()
        return self._work()

    def cancel(self) -> bytes:
        """A CancelRequest: of no consequence while nothing runs."""
        if not self.is_streaming:
            return b""
        self._left = 0
        was_simple = self._rest is not None
        self._error(ServerError("57014", "canceling statement due to user request"))
        if was_simple:
            self._ready()
        else:
            self._skipping = True
        return self._work()

    def _guarded(self, rest: list[str]) -> None:
        try:
            self._go_on(rest)
        except ServerError as error:
            self._error(error)
            self._ready()

    def _stream(self, count: int, last: bytes) -> None:
        self._left, self._last = count, last
        self._flush()

    def _work(self) -> bytes:
        while self.alive and not self._left and len(self._in) >= 5:
            size = 1 + int.from_bytes(self._in[1:5], "big")
            if self._copying and self._in[0] not in b"dcfHS":
                self._error(ServerError("08P01", f"unexpected message type 0x{self._in[0]:02X} during COPY from stdin"))
                self._fatal()
                break
            if len(self._in) < size:
                break
            one, self._in = self._in[:size], self._in[size:]
            self._take(one)
        flushed, self._flushed = b"".join(self._flushed), []
        return flushed

    def _flush(self) -> None:
        self._flushed += self._out
        self._out.clear()

    def _fatal(self) -> None:
        self._out.append(backend.error_response("FATAL", "08P01", "terminating connection"))
        self._flush()
        self.alive = False

    def _error(self, error: ServerError) -> None:
        body = backend.error_response("ERROR", error.sqlstate, error.text)
        if error.position:
            body = message(tags.ERROR_RESPONSE, body[5:-1] + b"P1\x00\x00")
        self._out.append(body)
        self._flush()
        self._abort()

    def _abort(self) -> None:
        self._copying, self._rest, self._deferred = False, None, False
        if self.status == "I":
            self.portals.clear()
        else:
            self.status = "E"

    def _ready(self) -> None:
        if self._search_path is not None:
            self._out.append(backend.parameter_status(b"search_path", self._search_path.encode()))
            self._search_path = None
        self._out.append(backend.ready_for_query(ord(self.status)))
        self.readies += 1
        self._flush()

    def _take(self, m: bytes) -> None:
        kind = m[0]
        if self._copying:
            try:
                self._copy_message(kind, m)
            except ServerError as error:
                was_simple = self._rest is not None
                self._error(error)
                if was_simple:
                    self._ready()
                else:
                    self._skipping = True
            return
        if kind in _EXTENDED:
            self._extended = True
        elif kind in (tags.SYNC, tags.QUERY, tags.FUNCTION_CALL):
            self._extended = False
        if kind == tags.SYNC:
            self._skipping = False
        if kind == tags.TERMINATE:
            self.alive = False
            return
        if self._skipping:
            return
        try:
            self._dispatch(kind, m)
        except ServerError as error:
            self._error(error)
            if self._extended:
                self._skipping = True
            else:
                self._ready()

    def _dispatch(self, kind: int, m: bytes) -> None:
        match kind:
            case tags.QUERY:
                self._simple(self._grammar(frontend.read_query(m)))
            case tags.PARSE:
                self._parse(frontend.read_parse(m))
            case tags.BIND:
                self._bind(frontend.read_bind(m))
            case tags.EXECUTE:
                self._execute(frontend.read_execute(m))
            case tags.DESCRIBE:
                self._describe(frontend.read_describe(m))
            case tags.CLOSE:
                target = frontend.read_close(m)
                space: dict[bytes, object] = self.statements if target.kind == tags.STATEMENT else self.portals  # type: ignore[assignment]
                space.pop(target.name[:63], None)
                self._out.append(message(tags.CLOSE_COMPLETE, b""))
            case tags.FLUSH:
                self._flush()
            case tags.SYNC:
                self._end_implicit()
                self._ready()
            case tags.FUNCTION_CALL:
                self.ran.append(f"FUNCTION CALL {frontend.read_function_call(m).oid}")
                self._out.append(message(tags.FUNCTION_CALL_RESPONSE, b"\xff\xff\xff\xff"))
                self._ready()
            case tags.COPY_DATA | tags.COPY_DONE | tags.COPY_FAIL:
                pass  # "probably got here because a frontend is still sending after receipt of a COPY failure"
            case _:
                self._fatal()

    def _grammar(self, query: bytes) -> list[str]:
        """The statements of a text."""
        return _parse(query)

    def _end_implicit(self) -> None:
        if self.status != "I":
            return
        deferred, self._deferred = self._deferred, False
        self.portals.clear()
        if deferred:
            raise ServerError("23505", "duplicate key")

    # simple query

    def _simple(self, texts: list[str]) -> None:
        self.statements.pop(b"", None)
        if not texts:
            self._out.append(message(tags.EMPTY_QUERY_RESPONSE, b""))
        self._go_on(texts)

    def _go_on(self, texts: list[str]) -> None:
        for position, text in enumerate(texts):
            if self._run(text, described=True):
                self._rest = texts[position + 1 :]
                return
        self._end_implicit()
        self._ready()

    # extended query

    def _parse(self, p: frontend.Parse) -> None:
        name = p.name[:63]
        if not name:
            self.statements.pop(b"", None)
        texts = self._grammar(p.query)
        if len(texts) > 1:
            raise ServerError("42601", "cannot insert multiple commands into a prepared statement")
        text = texts[0] if texts else ""
        self._allowed_now(text)
        if "pgproxy_denied" in text:
            raise ServerError("42703", f"column {text.split()[1]} does not exist", True)
        if name and name in self.statements:
            raise ServerError("42P05", "prepared statement already exists")
        self.statements[name] = text
        self._out.append(message(tags.PARSE_COMPLETE, b""))

    def _bind(self, b: frontend.Bind) -> None:
        if b.statement[:63] not in self.statements:
            raise ServerError("26000", "prepared statement does not exist")
        text = self.statements[b.statement[:63]]
        self._allowed_now(text)
        name = b.portal[:63]
        if name and name in self.portals:
            raise ServerError("42P03", "cursor already exists")
        self.portals[name] = Portal(text, len(self._savepoints))
        self.bound.append(text)
        self._out.append(message(tags.BIND_COMPLETE, b""))

    def _describe(self, target: frontend.Target) -> None:
        name = target.name[:63]
        if target.kind == tags.STATEMENT:
            if name not in self.statements:
                raise ServerError("26000", "prepared statement does not exist")
            text = self.statements[name]
            self._out.append(message(tags.PARAMETER_DESCRIPTION, b"\x00\x00"))
        else:
            if name not in self.portals:
                raise ServerError("34000", "portal does not exist")
            text = self.portals[name].text
        has_rows = text.startswith(("SELECT", "ROWS"))
        self._out.append(message(tags.ROW_DESCRIPTION if has_rows else tags.NO_DATA, b"\x00\x00" if has_rows else b""))

    def _execute(self, e: frontend.Execute) -> None:
        portal = self.portals.get(e.portal[:63])
        if portal is None:
            raise ServerError("34000", "portal does not exist")
        self._allowed_now(portal.text)
        if not portal.text:
            self._out.append(message(tags.EMPTY_QUERY_RESPONSE, b""))
            return
        if portal.text.startswith("ROWS"):
            if not portal.rows_sent:
                self.ran.append(portal.text)
            left = int(portal.text.split()[1]) - portal.rows_sent
            now = min(left, e.max_rows) if e.max_rows > 0 else left
            suspended = e.max_rows > 0 and now == e.max_rows
            last = message(tags.PORTAL_SUSPENDED if suspended else tags.COMMAND_COMPLETE, b"")
            if not suspended:
                last = message(tags.COMMAND_COMPLETE, f"SELECT {now}".encode() + b"\x00")
            portal.rows_sent += now
            if self.lazy and now:
                self._stream(now, last)
                return
            self._rows(now)
            self._out.append(last)
            return
        if portal.done:
            raise ServerError("55000", "portal cannot be run")
        portal.done = True
        self._run(portal.text, described=False)

    # statements

    def _allowed_now(self, text: str) -> None:
        if self.status == "E" and text and text.split()[0] not in ("COMMIT", "ROLLBACK"):
            raise ServerError("25P02", "current transaction is aborted")

    def _complete(self, tag: str) -> None:
        self._out.append(message(tags.COMMAND_COMPLETE, tag.encode() + b"\x00"))

    def _rows(self, count: int, value: bytes = b"1") -> None:
        row = message(tags.DATA_ROW, b"\x00\x01" + len(value).to_bytes(4, "big") + value)
        self._out += [row] * count

    def _run(self, text: str, *, described: bool, depth: int = 0) -> bool:
        """One statement; whether it waits for CopyData."""
        self._allowed_now(text)
        word, _, rest = text.partition(" ")
        if text.startswith("SELECT pgproxy_denied"):
            raise ServerError("42703", f"column {rest} does not exist", True)
        self.ran.append(text)
        match word:
            case "SELECT" | "ROWS":
                if described:
                    self._out.append(message(tags.ROW_DESCRIPTION, b"\x00\x00"))
                count = int(rest) if word == "ROWS" else 1
                if self.lazy and word == "ROWS" and count:
                    self._stream(count, message(tags.COMMAND_COMPLETE, f"SELECT {count}".encode() + b"\x00"))
                    return True
                self._rows(count, rest.encode() if word == "SELECT" else b"1")
                self._complete(f"SELECT {count}")
            case "FAIL":
                raise ServerError("22012", "division by zero")
            case "DEFERRED":
                self._deferred = True
                self._complete("INSERT 0 1")
            case "BEGIN":
                self.status = "T"
                self._complete("BEGIN")
            case "COMMIT" | "ROLLBACK" if not rest:
                self._complete("ROLLBACK" if self.status == "E" else word)
                self.status = "I"
                self.portals.clear()
                self._savepoints.clear()
            case "ROLLBACK":
                self._roll_back_to(rest.removeprefix("TO "))
            case "SAVEPOINT":
                if self.status != "T":
                    raise ServerError("25P01", "SAVEPOINT can only be used in transaction blocks")
                self._savepoints.append(rest)
                self._complete("SAVEPOINT")
            case "PREPARE":
                name, _, inner = rest.partition(" AS ")
                if name.encode() in self.statements:
                    raise ServerError("42P05", "prepared statement already exists")
                self.statements[name.encode()] = inner
                self._complete("PREPARE")
            case "EXECUTE":
                if rest.encode() not in self.statements:
                    raise ServerError("26000", "prepared statement does not exist")
                if depth == 20:
                    raise ServerError("54001", "stack depth limit exceeded")
                return self._run(self.statements[rest.encode()], described=described, depth=depth + 1)
            case "DEALLOCATE" | "DISCARD":
                if rest == "ALL":
                    self.statements.clear()
                elif self.statements.pop(rest.encode(), None) is None:
                    raise ServerError("26000", "prepared statement does not exist")
                self._complete(word)
            case "COPY" if rest.endswith("FROM STDIN"):
                self._out.append(message(tags.COPY_IN_RESPONSE, b"\x00\x00\x00"))
                self._flush()
                self._copying = True
                return True
            case "COPY":
                self._out.append(message(tags.COPY_OUT_RESPONSE, b"\x00\x00\x00"))
                self._out.append(message(tags.COPY_DATA, b"x\n"))
                self._out.append(message(tags.COPY_DONE, b""))
                self._complete("COPY 1")
            case "SET":
                self._search_path = rest.rpartition(" ")[2]
                self._complete("SET")
            case _:
                self._complete(word)
        return False

    def _roll_back_to(self, name: str) -> None:
        if name not in self._savepoints:
            raise ServerError("3B001", "savepoint does not exist")
        level = self._savepoints.index(name)
        del self._savepoints[level + 1 :]
        for key in [k for k, p in self.portals.items() if p.level > level]:
            del self.portals[key]
        self.status = "T"
        self._complete("ROLLBACK")

    def _copy_message(self, kind: int, m: bytes) -> None:
        if kind == tags.COPY_FAIL:
            raise ServerError("57014", "COPY from stdin failed")
        if kind == tags.COPY_DATA and b"BAD" in m:
            raise ServerError("22P02", "invalid input syntax")
        if kind != tags.COPY_DONE:
            return  # CopyData; Flush and Sync are ignored
        self._copying = False
        self._complete("COPY 0")
        rest, self._rest = self._rest, None
        if rest is not None:
            try:
                self._go_on(rest)
            except ServerError as error:
                self._error(error)
                self._ready()


def _parse(query: bytes) -> list[str]:
    """The grammar."""
    texts = [t.strip() for t in query.decode("utf-8", "surrogateescape").split(";")]
    for text in texts:
        if text and text.split()[0] not in _WORDS:
            raise ServerError("42601", f'syntax error at or near "{text.split()[0]}"', True)
    return [t for t in texts if t]
