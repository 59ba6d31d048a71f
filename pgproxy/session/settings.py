"""What changes the meaning of a text: followed by ParameterStatus where the server reports it.

The server reports a change late, just before ReadyForQuery ("Asynchronous Operations"), and `search_path` only since
PostgreSQL 18. Between a statement that may have changed a setting and that report, the setting is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

from classifier.model import ANY_PATH, SHADOWING_PATH, Environment

# Server encodings all of whose multi-byte sequences keep ASCII bytes for ASCII characters, as Python codecs. Not here,
# and refused: SJIS, BIG5, GBK, UHC, GB18030, JOHAB, whose trailing bytes can be a quote or a backslash.
CODECS: dict[str, str] = {
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "SQL_ASCII": "utf-8",
    "LATIN1": "latin-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6",
    "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "WIN1253": "cp1253",
    "WIN1254": "cp1254",
    "WIN1255": "cp1255",
    "WIN1256": "cp1256",
    "WIN1257": "cp1257",
    "WIN1258": "cp1258",
    "EUC_JP": "euc-jp",
    "EUC_KR": "euc-kr",
    "EUC_CN": "gb2312",
}

# Settings a later statement's meaning hangs on: nothing is judged while one of these may be about to change.
MEANINGFUL = frozenset(
    {"client_encoding", "standard_conforming_strings", "search_path", "role", "session_authorization", "*"}
)
_CHANGES_ROLE = frozenset({"role", "session_authorization"})


def codec_of(encoding: str) -> str | None:
    """The Python codec of a server encoding's name; None when it can hide quotes or is not known. Names are
    compared as the server does ("Character Set Support"): case and punctuation do not count."""
    wanted = _plain(encoding)
    for name, codec in CODECS.items():
        if _plain(name) == wanted:
            return codec
    return _ALIASES.get(wanted)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isascii() and c.isalnum())


_ALIASES = {
    "iso88591": "latin-1",
    "iso88592": "iso8859-2",
    "iso88593": "iso8859-3",
    "iso88594": "iso8859-4",
    "iso88599": "iso8859-9",
    "iso885910": "iso8859-10",
    "iso885913": "iso8859-13",
    "iso885914": "iso8859-14",
    "iso885915": "iso8859-15",
    "iso885916": "iso8859-16",
    "koi8": "koi8-r",
    "alt": "cp866",
    "win": "cp1251",
    "abc": "cp1258",
    "tcvn": "cp1258",
    "tcvn5712": "cp1258",
    "vscii": "cp1258",
    "windows866": "cp866",
    "windows874": "cp874",
    **{f"windows{n}": f"cp{n}" for n in range(1250, 1259)},
}


class Settings:
    """The settings of one session that judging needs."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._role: str | None = None
        self._catalog: Callable[[], tuple[int, bool]] = lambda: (0, False)
        self._catalog_state = (0, False)
        self._catalog_touched = False
        self._server_version = 0
        self._codec: str | None = "utf-8"
        self._client_encoding = ""
        self._server_encoding = ""
        self._conforming = True
        self._search_path: tuple[str, ...] | None = None
        self._reported_search_path: tuple[str, ...] | None = None
        self._uncertain: set[str] = set()
        # A statement of this session may have put pg_catalog behind other schemas, and the server has not said since
        # where names are looked for (before 18 it never does).
        self._may_be_shadowed = False
        self._environment: Environment | None = None
        self.touched_in_transaction = False
        # What a cursor, or a portal that FETCH can name, changes when it is fetched from; for the session's rest.
        self.cursors_may_change: tuple[str, ...] = ()

    def follow(self, role: str, catalog: Callable[[], tuple[int, bool]]) -> None:
        """Once it is known as whom the session began. `catalog` tells the version of the database's catalog to judge
        by, and whether it may be stale."""
        self._role = role
        self._catalog = catalog
        self._environment = None

    @property
    def codec(self) -> str | None:
        """Of client_encoding; None when texts cannot be read safely now."""
        return None if "client_encoding" in self._uncertain else self._codec

    @property
    def told_codec(self) -> str:
        """Of what pgproxy itself says: the encoding reported last, for the client heard of no other yet. In one that
        cannot be read here every byte of ASCII is itself."""
        return self._codec or "ascii"

    @property
    def client_encoding(self) -> str:
        """As reported, for messages."""
        return self._client_encoding

    @property
    def names_are_exact(self) -> bool:
        """Whether a name's bytes are the same to the client and to the server. Elsewhere the server converts a name,
        cuts it at 63 bytes of its own encoding, and may map two characters to one."""
        return "client_encoding" not in self._uncertain and self._client_encoding == self._server_encoding == "utf8"

    @property
    def environment(self) -> Environment:
        state = self._catalog()
        if self._environment is None or state != self._catalog_state:
            self._catalog_state = state
            self._environment = Environment(
                database=self._database,
                server_version=self._server_version,
                standard_conforming_strings=self._conforming and "standard_conforming_strings" not in self._uncertain,
                search_path=self._path,
                role=self._role,
                catalog_version=state[0],
                catalog_changed=state[1] or self._catalog_touched,
            )
        return self._environment

    @property
    def _path(self) -> tuple[str, ...] | None:
        if "search_path" not in self._uncertain and self._reported_search_path is not None:
            return self._reported_search_path
        return ANY_PATH if self._may_be_shadowed else None

    def reported(self, name: str, value: str) -> None:
        """ParameterStatus."""
        match name:
            case "client_encoding":
                self._codec = codec_of(value)
                self._client_encoding = _plain(value)
            case "server_encoding":
                self._server_encoding = _plain(value)
            case "standard_conforming_strings":
                self._conforming = value == "on"
            case "server_version":
                self._server_version = version_number(value)
            case "search_path":
                self._reported_search_path = split_search_path(value)
                self._may_be_shadowed = False
            case _:
                return
        self._uncertain.discard(name)
        self._environment = None

    def may_have_changed(self, names: tuple[str, ...]) -> None:
        """A statement that can change these ran; until the next ReadyForQuery they are unknown."""
        self._may_be_shadowed = self._may_be_shadowed or SHADOWING_PATH in names
        if "*" in names:
            self._role = None
            names = ("client_encoding", "standard_conforming_strings", "search_path")
        self._uncertain.update(n for n in names if n in MEANINGFUL)
        if not _CHANGES_ROLE.isdisjoint(names):
            self._role = None  # the server never reports it
        self.touched_in_transaction = True
        self._environment = None

    def cursor_over(self, names: tuple[str, ...]) -> None:
        """A cursor is about to be made over a query that can change these."""
        meaningful = set(names) & (MEANINGFUL | {SHADOWING_PATH})
        if meaningful:
            self.cursors_may_change = tuple(sorted(meaningful.union(self.cursors_may_change)))

    def ready(self, *, idle: bool) -> None:
        """ReadyForQuery: everything the server reports has been reported by now."""
        self._uncertain.clear()
        self._environment = None
        if idle:
            self.touched_in_transaction = False
            self._catalog_touched = False

    def catalog_may_have_changed(self) -> None:
        """By a statement of this session: until its transaction ends, no snapshot can show it."""
        self._catalog_touched = True
        self._environment = None


def version_number(text: str) -> int:
    """`18.6 (Debian …)` → 180006, as server_version_num; 0 when it is no such text."""
    parts = text.split(" ", 1)[0].split(".")
    major = "".join(c for c in parts[0] if c.isdigit())
    minor = "".join(c for c in parts[1] if c.isdigit()) if len(parts) > 1 else ""
    return int(major) * 10000 + int(minor or 0) if major else 0


def split_search_path(value: str) -> tuple[str, ...] | None:
    """The schemas of a reported search_path; None when a quoted name does not end ("SplitIdentifierString")."""
    names: list[str] = []
    rest = value.strip()
    while rest:
        if rest[0] == '"':
            name, rest = "", rest[1:]
            while True:
                part, quote, rest = rest.partition('"')
                if not quote:
                    return None
                name += part
                if not rest.startswith('"'):
                    break
                name, rest = name + '"', rest[1:]
        else:
            name, _, rest = rest.partition(",")
            names.append(name.strip().lower())
            rest = rest.strip()
            continue
        names.append(name)
        rest = rest.strip()
        if rest:
            if rest[0] != ",":
                return None
            rest = rest[1:].strip()
    return tuple(names)
